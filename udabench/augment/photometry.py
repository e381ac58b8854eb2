"""Photometric augmentation: colour jitter, blur, and the distortion of supervised training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

_SIGMAS = 5
"""A Gaussian is cut off after so many standard deviations (what is left out weighs under 1e-6)."""


def shift_brightness(image: Tensor, amount: float) -> Tensor:
    """Add to every channel; RGB in [0, 1]."""
    return (image + amount).clamp(0, 1)


def scale_contrast(image: Tensor, factor: float) -> Tensor:
    """Multiply every channel; RGB in [0, 1]."""
    return (image * factor).clamp(0, 1)


def scale_saturation(image: Tensor, factor: float) -> Tensor:
    """Multiply the S of HSV (at most 1), H and V kept; ``... 3 H W`` RGB in [0, 1]."""
    value = image.amax(-3, keepdim=True)
    chroma = value - image.amin(-3, keepdim=True)
    # S = chroma / V, so scaling S by f moves each channel to V - f (V - x); f is capped where S would pass 1.
    limit = value / chroma.clamp(min=1e-8)
    return (value - (value - image) * limit.clamp(max=factor)).clamp(min=0)


def shift_hue(image: Tensor, turn: float) -> Tensor:
    """Rotate the H of HSV by a part of the circle, -0.5 to 0.5; ``... 3 H W`` RGB in [0, 1]."""
    shifted: Tensor = V.adjust_hue(image, turn)
    return shifted


def jitter_colors(image: Tensor, strength: float, rng: Rng) -> Tensor:
    """Brightness, contrast, saturation and hue by random amounts, each image in an order of its own.

    Brightness is added, the other factors lie in ``1 +- strength``, hue turns by up to ``strength`` of the circle: the
    forms of kornia 0.5, which the code of DACS and DAFormer calls.

    Args:
        image: N 3 H W, RGB in [0, 1].
        strength: 0.25 (DACS), 0.2 (DAFormer).
        rng: CPU generator.
    """
    return torch.stack([_jitter_one(one, strength, rng) for one in image])


def _jitter_one(image: Tensor, strength: float, rng: Rng) -> Tensor:
    amounts = _uniform(rng, 4, -strength, strength)
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda x: shift_brightness(x, amounts[0]),
        lambda x: scale_contrast(x, 1 + amounts[1]),
        lambda x: scale_saturation(x, 1 + amounts[2]),
        lambda x: shift_hue(x, amounts[3]),
    ]
    for i in torch.randperm(4, generator=rng).tolist():
        image = changes[i](image)
    return image


def blur_kernel_size(side: int) -> int:
    """The odd size nearest to a tenth of the side: 51 at 512, 103 at 1024 (DACS)."""
    tenth = math.ceil(side / 10)
    return tenth if tenth % 2 else tenth - 1


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur as two 1-d convolutions with a window of a tenth of each side, mirrored at the border.

    Args:
        image: N 3 H W.
        sigma: N, in pixels, on the CPU.
    """
    blurred = image
    for axis in (2, 3):
        side = image.shape[axis]
        radius = min(max(blur_kernel_size(side) // 2, 1), math.ceil(_SIGMAS * float(sigma.max())), side - 1)
        blurred = _convolve(blurred, _gaussian(sigma, radius).to(image.device, image.dtype), axis)
    return blurred


def _gaussian(sigma: Tensor, radius: int) -> Tensor:
    """N 2r+1, each row sums to 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=sigma.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.unsqueeze(1)) ** 2)
    return kernel / kernel.sum(1, keepdim=True)


def _convolve(image: Tensor, kernel: Tensor, axis: int) -> Tensor:
    images, channels, height, width = image.shape
    radius = kernel.shape[1] // 2
    weight = kernel.repeat_interleave(channels, 0).unsqueeze(1)
    weight = weight.unsqueeze(-1) if axis == 2 else weight.unsqueeze(-2)
    padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    # reshape, not view: images may come in channels_last.
    padded = F.pad(image, padding, mode="reflect").reshape(1, images * channels, *_padded(height, width, padding))
    return F.conv2d(padded, weight, groups=images * channels).reshape(images, channels, height, width)


def _padded(height: int, width: int, padding: tuple[int, int, int, int]) -> tuple[int, int]:
    return height + padding[2] + padding[3], width + padding[0] + padding[1]


@dataclass(frozen=True)
class StrongAugment:
    """Colour jitter, then blur, of the images that self-training learns from (DACS).

    Whether each is applied is drawn once a call and shared by the batch; the amounts are drawn for every image.
    """

    jitter_strength: float = 0.2
    jitter_chance: float = 0.8
    blur_chance: float = 0.5
    sigma: tuple[float, float] = (0.15, 1.15)

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """N 3 H W in [0, 1] -> the same."""
        jitter, blur = _uniform(rng, 2, 0, 1)
        if jitter < self.jitter_chance:
            image = jitter_colors(image, self.jitter_strength, rng)
        if blur < self.blur_chance:
            image = gaussian_blur(image, torch.tensor(_uniform(rng, len(image), *self.sigma)))
        return image


def distort(image: Tensor, rng: Rng) -> Tensor:
    """PhotoMetricDistortion of supervised training in the DAFormer family: each of four changes with chance 1/2.

    Brightness +-32/255, contrast and saturation x 0.5 to 1.5, hue +-18 of 180; contrast comes before or after
    saturation and hue, by a coin.

    Args:
        image: N 3 H W, RGB in [0, 1]; every image is distorted for itself.
        rng: CPU generator.
    """
    return torch.stack([_distort_one(one, rng) for one in image])


def _distort_one(image: Tensor, rng: Rng) -> Tensor:
    brightness, contrast, saturation, hue, late = (u < 0.5 for u in _uniform(rng, 5, 0, 1))
    shift, gain, scale, turn = _uniform(rng, 4, -1, 1)
    if brightness:
        image = shift_brightness(image, shift * 32 / 255)
    if contrast and not late:
        image = scale_contrast(image, 1 + gain / 2)
    if saturation:
        image = scale_saturation(image, 1 + scale / 2)
    if hue:
        image = shift_hue(image, turn / 10)
    if contrast and late:
        image = scale_contrast(image, 1 + gain / 2)
    return image


def _uniform(rng: Rng, count: int, low: float, high: float) -> list[float]:
    values: list[float] = (torch.rand(count, generator=rng) * (high - low) + low).tolist()
    return values
