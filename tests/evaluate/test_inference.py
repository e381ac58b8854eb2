"""Whole, slide and flip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from udabench.config import EvaluateConfig
from udabench.evaluate.inference import infer
from udabench.method import Samples
from udabench.size import Size, window_corners


def samples(height: int, width: int, count: int = 1) -> Samples:
    rng = torch.Generator().manual_seed(0)
    return Samples(
        image=torch.rand(count, 3, height, width, generator=rng),
        label=None,
        names=tuple(f"image_{i}" for i in range(count)),
        valid=None,
        box=torch.tensor([[0, 0, height, width]] * count),
        size=Size(height, width),
        flipped=torch.zeros(count, dtype=torch.bool),
        layers={},
    )


def config(**values: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate(values)


def identity(given: Samples) -> Tensor:
    return given.image


def coarse(given: Samples) -> Tensor:
    return avg_pool2d(given.image, 2)


class Spy:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Samples] = []

    def __call__(self, given: Samples) -> Tensor:
        self.seen.append(given)
        return given.image


def test_whole_keeps_the_predictors_grid() -> None:
    given = samples(8, 16)
    views = infer(coarse, given, config())
    assert views.shape == (1, 1, 3, 4, 8)
    assert torch.equal(views[0], coarse(given))


def test_corners_by_hand() -> None:
    """HRDA's three windows over 2048x1024; and last windows that are shifted to fit."""
    whole = list(window_corners(Size(1024, 2048), Size(1024, 1024), Size(512, 512)))
    assert whole == [(0, 0), (0, 512), (0, 1024)]
    assert list(window_corners(Size(5, 9), Size(4, 4), Size(3, 3))) == [(0, 0), (0, 3), (0, 5), (1, 0), (1, 3), (1, 5)]
    assert list(window_corners(Size(4, 4), Size(4, 4), Size(2, 2))) == [(0, 0)]
    assert len(list(window_corners(Size(1024, 1024), Size(512, 512), Size(256, 256)))) == 9


def test_every_pixel_is_covered() -> None:
    for height, width, window, stride in ((7, 11, 4, 3), (8, 8, 3, 3), (9, 5, 5, 1)):
        covered = torch.zeros(height, width)
        for top, left in window_corners(Size(height, width), Size(window, window), Size(stride, stride)):
            assert 0 <= top <= height - window
            assert 0 <= left <= width - window
            covered[top : top + window, left : left + window] += 1
        assert covered.min() >= 1


def test_slide_averages_windows_by_hand() -> None:
    """A 1 x 5 image, windows of 3 at 0 and 2; the k-th window says k: pixel 2 lies in both."""

    def numbered(given: Samples) -> Tensor:
        return given.box[:, 1].float().view(-1, 1, 1, 1).expand(-1, 2, 1, 3)

    views = infer(numbered, samples(1, 5), config(mode="slide", window="3x1", stride="2x1"))
    assert views[0, 0].tolist() == [[[0.0, 0.0, 1.0, 2.0, 2.0]]] * 2


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_slide_of_a_local_predictor_is_whole(batch: int, count: int) -> None:
    given, spy = samples(9, 14, count), Spy()
    views = infer(spy, given, config(mode="slide", window="6x4", stride="4x3", batch=batch))
    torch.testing.assert_close(views[0], given.image)
    assert max(len(seen.names) for seen in spy.seen) == min(batch, 9)
    for seen in spy.seen:
        for image, name, (top, left, height, width) in zip(seen.image, seen.names, seen.box.tolist(), strict=True):
            index = given.names.index(name)
            assert torch.equal(image, given.image[index, :, top : top + height, left : left + width])


@pytest.mark.parametrize("align_corners", [False, True])
def test_slide_resizes_window_logits_to_the_window(align_corners: bool) -> None:
    """An independent sum, window by window, of upsampled logits over their number (float64)."""
    given = samples(8, 12)
    total, number = torch.zeros(3, 8, 12, dtype=torch.float64), torch.zeros(8, 12)
    for top in (0, 4):
        for left in (0, 2, 4, 6):
            part = given.image[..., top : top + 4, left : left + 6].double()
            full = interpolate(avg_pool2d(part, 2), (4, 6), mode="bilinear", align_corners=align_corners)
            total[:, top : top + 4, left : left + 6] += full[0]
            number[top : top + 4, left : left + 6] += 1
    views = infer(coarse, given, config(mode="slide", window="6x4", stride="2x4", align_corners=align_corners, batch=3))
    torch.testing.assert_close(views[0, 0].double(), total / number, rtol=0, atol=1e-6)


def test_window_larger_than_the_image() -> None:
    given = samples(6, 8)
    assert torch.equal(infer(identity, given, config(mode="slide", window="64x64", stride="32x32"))[0], given.image)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_flip_of_a_symmetric_predictor(mode: str) -> None:
    """A predictor that treats left and right alike gives two equal views."""
    views = infer(identity, samples(6, 8, 2), config(mode=mode, window="4x4", stride="2x2", flip=True))
    assert views.shape == (2, 2, 3, 6, 8)
    torch.testing.assert_close(views[0], views[1])


def test_flip_shows_the_mirrored_image_and_mirrors_back() -> None:
    given, spy = samples(4, 6), Spy()
    ramp = torch.arange(6.0)

    def ramped(seen: Samples) -> Tensor:
        spy(seen)
        return ramp.expand(1, 1, 4, 6)

    views = infer(ramped, given, config(flip=True))
    assert torch.equal(spy.seen[1].image, given.image.flip(-1))
    assert spy.seen[1].flipped.all()
    assert not spy.seen[0].flipped.any()
    assert torch.equal(views[1], ramp.flip(0).expand(1, 1, 4, 6))


def test_batches_of_whole_images() -> None:
    spy = Spy()
    infer(spy, samples(4, 4, 5), config(batch=2))
    assert [len(seen.names) for seen in spy.seen] == [2, 2, 1]


def test_half_precision_becomes_float32() -> None:
    for mode in ("whole", "slide"):
        assert infer(lambda s: s.image.bfloat16(), samples(4, 4), config(mode=mode)).dtype == torch.float32
