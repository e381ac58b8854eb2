"""Prototypes: the mean feature of each class, and how alike features are to them, as products of matrices.

Labels have the image's resolution, features a coarser grid. Under nearest upsampling every pixel has the feature of its
cell, so what is summed over pixels is summed over cells, each weighted by the pixels of each class that lie in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from udabench.world import total


class Prototypes(NamedTuple):
    """Features that stand for classes, of each image.

    Attributes:
        means: N C D, 0 for an absent class.
        present: N C bool.
    """

    means: Tensor
    present: Tensor

    def detach(self) -> Prototypes:
        """Without the graph."""
        return Prototypes(self.means.detach(), self.present)


def nearest_cells(length: int, size: int, device: torch.device) -> Tensor:
    """The place among ``length`` that nearest upsampling to ``size`` reads for each of its own: size int64.

    As torch does it in float32, where a place on the border of two cells may be rounded into the one before.
    """
    places = torch.arange(length, dtype=torch.float32, device=device)
    return F.interpolate(places[None, None], size, mode="nearest")[0, 0].long()


def cell_counts(label: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """How many pixels of each class lie in each cell.

    Args:
        label: N H W int64; what is no class (255) is not counted.
        classes: C.
        grid: h, w.

    Returns:
        N C h*w float32.
    """
    count, height, width = label.shape
    rows = nearest_cells(grid[0], height, label.device) * grid[1]
    cell = rows[:, None] + nearest_cells(grid[1], width, label.device)
    cells, first = grid[0] * grid[1], torch.arange(count, device=label.device)[:, None, None] * (classes + 1)
    index = ((first + label.clamp(max=classes)) * cells + cell).flatten()
    # torch.bincount would wait for a GPU, to know how long its result is.
    counts = torch.zeros(count * (classes + 1) * cells, device=label.device)
    counts.scatter_add_(0, index, counts.new_ones(1).expand(len(index)))
    return counts.view(count, classes + 1, cells)[:, :classes]


def spread_cells(value: Tensor, size: tuple[int, ...]) -> Tensor:
    """Nearest upsampling of what each cell holds: N h w of any type -> N H W."""
    rows, columns = (
        nearest_cells(length, whole, value.device) for length, whole in zip(value.shape[1:], size, strict=True)
    )
    return value[:, rows[:, None], columns]


def class_means(features: Tensor, counts: Tensor) -> Prototypes:
    """Masked average pooling (BiCL, Eq 1), differentiable; in the features' precision, also under autocast.

    Args:
        features: N D h w.
        counts: N C h*w, see :func:`cell_counts`.
    """
    pixels = counts.sum(2)
    shares = (counts / pixels.clamp(min=1)[:, :, None]).to(features)
    with torch.autocast(features.device.type, enabled=False):
        # In this order the gradient has the features' own layout.
        means = (features.flatten(2) @ shares.mT).mT
    return Prototypes(means, pixels > 0)


def cosine_to(features: Tensor, means: Tensor) -> Tensor:
    """Cosines of features N D h w and prototypes N C D (or C D, for all images): N C h*w. Those of a zero are 0."""
    units = F.normalize(means, dim=-1).expand(len(features), -1, -1)
    cosine: Tensor = _CosineToUnits.apply(features.flatten(2), units)
    return cosine


class _CosineToUnits(torch.autograd.Function):
    """Features N D P and unit vectors N C D. The gradient of wide features is written once, not once for each use."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, units: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        # The quotient's gradient at a zero would not be finite.
        lengths = lengths.masked_fill(lengths == 0, 1)
        cosine = (units @ features) / lengths
        ctx.save_for_backward(features, units, lengths, cosine)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        features, units, lengths, cosine = ctx.saved_tensors
        scaled = gradient / lengths
        change = features * -((scaled * cosine).sum(1, keepdim=True) / lengths)
        return torch.baddbmm(change, units.mT, scaled, out=change), scaled @ features.mT


class RunningPrototypes(nn.Module):
    """One prototype a class over the course of a training: an exponential moving average (BiCL, Eq 4 and 5).

    A class begins with its first mean. What moves it is the mean over those images of the whole batch, of all ranks,
    that show it; a class that none shows stays.

    Args:
        classes: C.
        channels: D.
        momentum: share of the old value.
    """

    means: Tensor
    """C D."""
    seen: Tensor
    """C bool: classes that have begun."""

    def __init__(self, classes: int, channels: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(classes, channels))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, prototypes: Prototypes) -> None:
        """Move towards a batch's."""
        shown = prototypes.present.unsqueeze(2).to(self.means.dtype)
        images = total(shown.sum(0))
        batch = total((prototypes.means.to(self.means.dtype) * shown).sum(0)) / images.clamp(min=1)
        moved = torch.where(self.seen[:, None], self.means.lerp(batch, 1 - self.momentum), batch)
        self.means.copy_(torch.where(images > 0, moved, self.means))
        self.seen |= images[:, 0] > 0
