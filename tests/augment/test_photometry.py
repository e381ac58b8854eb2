"""Photometric augmentation, against colorsys, torchvision's blur and values worked out by hand."""

import colorsys

import pytest
import torch
from torchvision.transforms.v2 import functional as V

from udabench.augment import photometry
from udabench.augment.photometry import (
    StrongAugment,
    blur_kernel_size,
    distort,
    gaussian_blur,
    jitter_colors,
    scale_contrast,
    scale_saturation,
    shift_brightness,
    shift_hue,
)

COLORS = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.5], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0], [1.0, 0.9, 0.8]])
IMAGE = COLORS.T.reshape(3, 1, 5)


def _hsv(function):
    rows = [colorsys.hsv_to_rgb(*function(*colorsys.rgb_to_hsv(*color.tolist()))) for color in COLORS]
    return torch.tensor(rows).T.reshape(3, 1, 5)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.3, 3.0])
def test_saturation_is_that_of_hsv(factor):
    expected = _hsv(lambda h, s, v: (h, min(1.0, s * factor), v))
    torch.testing.assert_close(scale_saturation(IMAGE, factor), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("turn", [-0.2, 0.1])
def test_hue_is_that_of_hsv(turn):
    expected = _hsv(lambda h, s, v: ((h + turn) % 1, s, v))
    torch.testing.assert_close(shift_hue(IMAGE, turn), expected, atol=1e-5, rtol=0)


def test_brightness_and_contrast():
    assert shift_brightness(torch.tensor([0.1, 0.9]), 0.2).tolist() == pytest.approx([0.3, 1.0])
    assert scale_contrast(torch.tensor([0.1, 0.9]), 1.5).tolist() == pytest.approx([0.15, 1.0])


def test_kernel_sizes_of_the_reference():
    assert [blur_kernel_size(side) for side in (512, 1024)] == [51, 103]


def test_blur_equals_torchvision_with_a_sigma_for_each_image():
    image = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.4, 1.1])
    blurred = gaussian_blur(image, sigma)
    for i in range(2):
        expected = V.gaussian_blur(image[i], [9, 7], [sigma[i].item()] * 2)
        # 64 rows allow a kernel of 7, 80 columns one of 7; compare where no window reaches further.
        wide = V.gaussian_blur(image[i], [7, 7], [sigma[i].item()] * 2)
        torch.testing.assert_close(blurred[i], wide, atol=1e-5, rtol=0)
        assert (expected - wide).abs().max() < 0.02


def test_strong_augment_applies_by_the_draw_of_the_call(monkeypatch):
    image = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    calls = []
    monkeypatch.setattr(photometry, "jitter_colors", lambda x, s, r: calls.append("jitter") or x)
    monkeypatch.setattr(photometry, "gaussian_blur", lambda x, s: calls.append("blur") or x)
    rng = torch.Generator().manual_seed(0)
    for _ in range(500):
        StrongAugment()(image, rng)
    assert calls.count("jitter") / 500 == pytest.approx(0.8, abs=0.06)
    assert calls.count("blur") / 500 == pytest.approx(0.5, abs=0.07)


def test_jitter_is_drawn_for_each_image_and_repeats_with_the_seed():
    image = torch.full((2, 3, 2, 2), 0.5) * torch.tensor([0.6, 0.8, 1.0]).view(1, 3, 1, 1)
    once, again = (jitter_colors(image, 0.2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.allclose(once[0], once[1])
    assert torch.equal(jitter_colors(image, 0.0, torch.Generator()), image) or torch.allclose(
        jitter_colors(image, 0.0, torch.Generator()), image, atol=1e-5
    )


def _one_by_one(image, draws, orders, strength):
    """Each image alone, its changes in its own order, hue by torchvision."""
    done = []
    for one, units, order in zip(image, draws, orders, strict=True):
        shift, gain, scale, turn = ((u * 2 * strength) - strength for u in units)
        for kind in order:
            if kind == 0:
                one = (one + shift).clamp(0, 1)
            elif kind == 1:
                one = (one * (1 + gain)).clamp(0, 1)
            elif kind == 2:
                one = scale_saturation(one, 1 + scale)
            else:
                one = V.adjust_hue(one, turn)
        done.append(one)
    return torch.stack(done)


def test_a_jittered_batch_is_each_image_in_its_own_order():
    image = torch.rand(6, 3, 5, 7, generator=torch.Generator().manual_seed(4))
    rng = torch.Generator().manual_seed(11)
    draws = [(torch.rand(4, generator=rng).tolist(), torch.randperm(4, generator=rng).tolist()) for _ in image]
    assert len({tuple(order) for _, order in draws}) > 3
    expected = _one_by_one(image, *zip(*draws, strict=True), 0.25)
    jittered = jitter_colors(image, 0.25, torch.Generator().manual_seed(11))
    torch.testing.assert_close(jittered, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "augment", [lambda x, r: StrongAugment(jitter_chance=1, blur_chance=1)(x, r), distort], ids=["strong", "distort"]
)
def test_ranks_give_their_images_what_the_whole_batch_would(augment, monkeypatch):
    image = torch.rand(4, 3, 20, 30, generator=torch.Generator().manual_seed(5))
    whole = augment(image, torch.Generator().manual_seed(6))
    monkeypatch.setattr(photometry, "world_size", lambda: 2)
    for rank in range(2):
        rows = slice(2 * rank, 2 * rank + 2)
        monkeypatch.setattr(photometry, "own", lambda drawn, rows=rows: drawn[rows])
        part = augment(image[rows], torch.Generator().manual_seed(6))
        torch.testing.assert_close(part, whole[rows], atol=1e-6, rtol=0)


def test_distortion_leaves_one_image_in_sixteen_alone_and_stays_in_range():
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    rng = torch.Generator().manual_seed(0)
    results = [one for _ in range(8) for one in distort(image.expand(100, -1, -1, -1), rng)]
    same = sum(torch.equal(result, image[0]) for result in results) / 800
    assert same == pytest.approx(1 / 16, abs=0.03)
    assert all(result.min() >= 0 and result.max() <= 1 for result in results)


def test_distortion_amounts(monkeypatch):
    """All four changes at their extremes, contrast last."""
    draws = iter([[0.1, 0.1, 0.1, 0.1, 0.9], [1.0, 1.0, -1.0, 0.0]])
    monkeypatch.setattr(photometry, "_uniform", lambda *_: next(draws))
    grey = torch.full((1, 3, 1, 1), 0.2)
    assert distort(grey, torch.Generator()).flatten().tolist() == pytest.approx([1.5 * (0.2 + 32 / 255)] * 3, abs=1e-5)


def test_blur_takes_any_memory_format() -> None:
    image = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.7, 1.1])
    blurred = gaussian_blur(image.contiguous(memory_format=torch.channels_last), sigma)
    assert torch.allclose(blurred, gaussian_blur(image, sigma), atol=1e-6)
