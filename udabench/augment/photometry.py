"""Photometric augmentation: colour jitter, blur, and the distortion of supervised training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F

from udabench.world import own, world_size

Amount = float | Tensor
"""One number for all images, or N 1 1 1: one for each."""
_SIGMAS = 5
"""A Gaussian is cut off after so many standard deviations (what is left out weighs under 1e-6)."""


def shift_brightness(image: Tensor, amount: Amount) -> Tensor:
    """Add to every channel; RGB in [0, 1]."""
    return (image + amount).clamp(0, 1)


def scale_contrast(image: Tensor, factor: Amount) -> Tensor:
    """Multiply every channel; RGB in [0, 1]."""
    return (image * factor).clamp(0, 1)


def scale_saturation(image: Tensor, factor: Amount) -> Tensor:
    """Multiply the S of HSV (at most 1), H and V kept; ``... 3 H W`` RGB in [0, 1]."""
    value = image.amax(-3, keepdim=True)
    chroma = value - image.amin(-3, keepdim=True)
    # S = chroma / V, so scaling S by f moves each channel to V - f (V - x); f is capped where S would pass 1.
    limit = value / chroma.clamp(min=1e-8)
    return (value - (value - image) * torch.minimum(limit, torch.as_tensor(factor))).clamp(min=0)


def shift_hue(image: Tensor, turn: Amount) -> Tensor:
    """Rotate the H of HSV by a part of the circle; ``... 3 H W`` RGB in [0, 1]. H runs from 0 to 1 here.

    A channel is V up to a sixth of the circle from where it is full (red at 0, green at 1/3, blue at 2/3), and falls
    to V - chroma at a third. This takes a third of the time of torchvision's way to HSV and back.
    """
    red, green, blue = (image.narrow(-3, channel, 1) for channel in range(3))
    value = image.amax(-3, keepdim=True)
    chroma = value - image.amin(-3, keepdim=True)
    sixths = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4)),
    )
    hue = sixths.div_(chroma.clamp(min=1e-8)).div_(6).add_(turn)
    away = hue - torch.arange(3, device=image.device).view(3, 1, 1) / 3
    away = away.sub_(away.round()).abs_()
    return value - chroma * away.mul_(6).sub_(1).clamp_(0, 1)


def jitter_colors(image: Tensor, strength: float, rng: Rng) -> Tensor:
    """Brightness, contrast, saturation and hue by random amounts, each image in an order of its own.

    Brightness is added, the other factors lie in ``1 +- strength``, hue turns by up to ``strength`` of the circle: the
    forms of kornia 0.5, which the code of DACS and DAFormer calls.

    Args:
        image: N 3 H W, RGB in [0, 1].
        strength: 0.25 (DACS), 0.2 (DAFormer).
        rng: CPU generator.
    """
    draws = [(_uniform(rng, 4, -strength, strength), torch.randperm(4, generator=rng)) for _ in _all(image)]
    amounts = own(torch.tensor([amounts for amounts, _ in draws]))
    orders = own(torch.stack([order for _, order in draws]))
    for place in range(4):
        for kind, change in enumerate(_JITTERS):
            image = _change(image, orders[:, place] == kind, change, amounts[:, kind])
    return image


_JITTERS: tuple[Callable[[Tensor, Amount], Tensor], ...] = (
    shift_brightness,
    lambda image, amount: scale_contrast(image, 1 + amount),
    lambda image, amount: scale_saturation(image, 1 + amount),
    shift_hue,
)


def _all(image: Tensor) -> range:
    """The images of the whole batch, on all ranks."""
    return range(len(image) * world_size())


def _change(image: Tensor, mask: Tensor, change: Callable[[Tensor, Amount], Tensor], amounts: Tensor) -> Tensor:
    """Change the images of the mask, all at once, each by its own amount; mask and amounts are N, on the CPU."""
    rows = mask.nonzero().flatten()
    if not len(rows):
        return image
    amount = amounts[rows].view(-1, 1, 1, 1).to(image)
    if len(rows) == len(image):
        return change(image, amount)
    rows = rows.to(image.device)
    return image.index_copy(0, rows, change(image.index_select(0, rows), amount))


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
            image = gaussian_blur(image, own(torch.tensor(_uniform(rng, len(_all(image)), *self.sigma))))
        return image


def distort(image: Tensor, rng: Rng) -> Tensor:
    """PhotoMetricDistortion of supervised training in the DAFormer family: each of four changes with chance 1/2.

    Brightness +-32/255, contrast and saturation x 0.5 to 1.5, hue +-18 of 180; contrast comes before or after
    saturation and hue, by a coin.

    Args:
        image: N 3 H W, RGB in [0, 1]; every image is distorted for itself.
        rng: CPU generator.
    """
    draws = [(_uniform(rng, 5, 0, 1), _uniform(rng, 4, -1, 1)) for _ in _all(image)]
    chosen = own(torch.tensor([chances for chances, _ in draws]) < 0.5)
    amounts = own(torch.tensor([amounts for _, amounts in draws]))
    brightness, contrast, saturation, hue, late = chosen.unbind(1)
    shift, gain, scale, turn = amounts.unbind(1)
    image = _change(image, brightness, shift_brightness, shift * 32 / 255)
    image = _change(image, contrast & ~late, scale_contrast, 1 + gain / 2)
    image = _change(image, saturation, scale_saturation, 1 + scale / 2)
    image = _change(image, hue, shift_hue, turn / 10)
    return _change(image, contrast & late, scale_contrast, 1 + gain / 2)


def _uniform(rng: Rng, count: int, low: float, high: float) -> list[float]:
    values: list[float] = (torch.rand(count, generator=rng) * (high - low) + low).tolist()
    return values
