"""Labels and padding on another grid than the image's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from udabench.labels import IGNORE
from udabench.method import Samples
from udabench.size import Size


def nearest(label: Tensor, size: Size) -> Tensor:
    """N H W -> N size, int64."""
    return F.interpolate(label[:, None].float(), size, mode="nearest")[:, 0].long()


def inside(samples: Samples, grid: Size) -> Tensor:
    """Cells that are no padding: N h w bool."""
    if samples.valid is None:
        return torch.ones(len(samples.image), *grid, dtype=torch.bool, device=samples.image.device)
    return nearest(samples.valid, grid) > 0


def masked(label: Tensor, samples: Samples) -> Tensor:
    """Labels of any grid, N h w int64, with 255 on padding."""
    return label.where(inside(samples, Size(*label.shape[-2:])), IGNORE)
