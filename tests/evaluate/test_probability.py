"""Probabilities averaged over views."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from udabench.config import EvaluateConfig
from udabench.evaluate.probability import mean_probability, views_of
from udabench.method import Samples
from udabench.size import Size

SIZE = (20, 30)


def samples() -> Samples:
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return Samples(image, None, ("a",), None, torch.tensor([[0, 0, *SIZE]]), Size(*SIZE), torch.tensor([False]), {})


def predictor(seen: Samples) -> torch.Tensor:
    """Depends on the place, so that a mirrored view differs."""
    height, width = seen.image.shape[-2] // 2, seen.image.shape[-1] // 2
    small = interpolate(seen.image, (height, width))
    return small * 5 * torch.linspace(0, 1, width)


def test_every_view_is_upsampled_then_made_probable_then_averaged():
    asked = samples()
    views = views_of(predictor, asked, EvaluateConfig(flip=True), (0.5, 1.5))
    assert [tuple(view.shape) for view in views] == [(1, 3, 5, 7), (1, 3, 5, 7), (1, 3, 15, 22), (1, 3, 15, 22)]
    expected = []
    for size in ((10, 15), (30, 45)):
        image = interpolate(asked.image, size, mode="bilinear", antialias=size < SIZE)
        for mirror in (False, True):
            logits = predictor(asked._replace(image=image.flip(-1) if mirror else image))
            logits = logits.flip(-1) if mirror else logits
            expected.append(interpolate(logits, SIZE, mode="bilinear").softmax(1))
    mean = mean_probability(views, SIZE)
    torch.testing.assert_close(mean, sum(expected) / 4)
    torch.testing.assert_close(mean.sum(1), torch.ones(1, *SIZE))
    single = mean_probability(views[:1], SIZE)
    assert (single - mean).abs().max() > 0.01


def test_windows_are_joined_before_the_average():
    config = EvaluateConfig(mode="slide", window="20x20", stride="10x20")
    (view,) = views_of(predictor, samples(), config)
    assert view.shape[-2:] == SIZE
    # The last columns are seen by the last window alone.
    last = samples()._replace(image=samples().image[..., 10:])
    joined = interpolate(predictor(last), (20, 20), mode="bilinear")
    torch.testing.assert_close(view[..., 20:], joined[..., 10:])
