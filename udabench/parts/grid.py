"""Labels and padding on another grid than the image's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from udabench.labels import IGNORE
from udabench.method import Samples


def nearest(label: Tensor, size: Sequence[int]) -> Tensor:
    """N H W of ids or flags -> N size, int64."""
    if tuple(label.shape[-2:]) == tuple(size):
        return label.long()
    return F.interpolate(label[:, None].float(), tuple(size), mode="nearest")[:, 0].long()


def inside(samples: Samples, grid: Sequence[int]) -> Tensor:
    """Cells that are no padding: N h w bool."""
    if samples.valid is None:
        return torch.ones(len(samples.image), *grid, dtype=torch.bool, device=samples.image.device)
    return nearest(samples.valid, grid) > 0


def masked(label: Tensor, samples: Samples) -> Tensor:
    """Labels of any grid, N h w int64, with 255 on padding."""
    return label if samples.valid is None else label.where(inside(samples, label.shape[-2:]), IGNORE)
