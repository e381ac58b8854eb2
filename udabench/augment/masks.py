"""Masks of square blocks, which hide most of an image (MIC)."""

from __future__ import annotations

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F


def block_mask(count: int, height: int, width: int, block: int, ratio: float, rng: Rng) -> Tensor:
    """Which pixels stay: a block does where a uniform draw is greater than ``ratio``.

    The grid has ``round(height / block)`` by ``round(width / block)`` cells, one at least, and is resized by nearest
    neighbour: where a side is no multiple of ``block``, the cells are not exactly squares.

    Args:
        count: of images; each has a mask of its own.
        block: side of a block, in pixels.
        ratio: expected share that is hidden.
        rng: CPU generator.

    Returns:
        count 1 height width bool, on the CPU.
    """
    grid = max(1, round(height / block)), max(1, round(width / block))
    keep = torch.rand(count, 1, *grid, generator=rng) > ratio
    return F.interpolate(keep.float(), size=(height, width), mode="nearest").bool()


def hide(image: Tensor, keep: Tensor, color: tuple[float, float, float]) -> Tensor:
    """N 3 H W with ``color`` where ``keep`` (N 1 H W bool) is False."""
    fill = torch.tensor(color, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    return torch.where(keep.to(image.device), image, fill)
