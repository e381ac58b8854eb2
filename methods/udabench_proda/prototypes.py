"""ProDA's prototypes: a mean feature of each class of the target, distances to them, and the labels that follow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from udabench.parts.prototypes import cell_counts, class_means
from udabench.world import gather, total
from udabench_proda.config import Mean

FAR = 1e6
"""Distance to a class that has no prototype: no feature is ever assigned to it."""
_TINY = 1e-12
"""Of a squared distance: the gradient of the root at 0 would not be finite."""


class Means(NamedTuple):
    """Mean features of the classes of each image.

    Attributes:
        values: N C D, 0 for an absent class.
        cells: N C, how many cells they are of.
    """

    values: Tensor
    cells: Tensor


def means_of(features: Tensor, label: Tensor, classes: int) -> Means:
    """The means of features N D h w by labels N H W (255: left out)."""
    counts = cell_counts(label, classes, (features.shape[2], features.shape[3]))
    return Means(class_means(features.float(), counts).means, counts.sum(2))


class TargetPrototypes(nn.Module):
    """One prototype a class. A class that was never seen has none: it is far from everything until it is seen.

    Args:
        classes: C.
        channels: D.
        rate: share of a batch's mean in a prototype.
        mean: see :func:`update`.
        least: cells of a class from which on its mean counts.
    """

    values: Tensor
    """C D."""
    known: Tensor
    """C bool."""

    def __init__(self, classes: int, channels: int, rate: float, mean: Mean, least: int) -> None:
        super().__init__()
        self.rate, self.mean, self.least = rate, mean, least
        self.register_buffer("values", torch.zeros(classes, channels))
        self.register_buffer("known", torch.zeros(classes, dtype=torch.bool))

    @torch.no_grad()
    def begin(self, means: Means) -> None:
        """Start from the means of the whole target (N is 1)."""
        self.values.copy_(means.values[0])
        self.known.copy_(means.cells[0] >= self.least)

    @torch.no_grad()
    def update(self, means: Means) -> None:
        """Move towards the means of a batch's images, those of all ranks.

        ``pixels``: once, towards the mean over all cells of the batch; ``images``: towards one image after the other.
        A class without a prototype takes its first mean as it is.
        """
        if self.mean == "images":
            rows = Means(gather(means.values), gather(means.cells))
        else:
            cells = total(means.cells.sum(0, keepdim=True))
            sums = total((means.values * means.cells.unsqueeze(2)).sum(0, keepdim=True))
            rows = Means(sums / cells.clamp(min=1).unsqueeze(2), cells)
        for value, count in zip(*rows, strict=True):
            self._move(value, count >= self.least)

    def _move(self, means: Tensor, seen: Tensor) -> None:
        moved = torch.where(self.known[:, None], self.values.lerp(means, self.rate), means)
        self.values.copy_(torch.where(seen[:, None], moved, self.values))
        self.known |= seen

    def distances(self, features: Tensor) -> Tensor:
        """Euclidean distance of every feature to every prototype: N D h w -> N C h w, float32."""
        with torch.autocast(features.device.type, enabled=False):
            flat = features.float().flatten(2)
            squares = self.values.square().sum(1)[:, None] - 2 * (self.values @ flat) + flat.square().sum(1)[:, None]
            distances = squares.clamp(min=_TINY).sqrt().masked_fill(~self.known[:, None], FAR)
        return distances.view(*distances.shape[:2], *features.shape[2:])


def rectified_label(soft: Tensor, distances: Tensor, temperature: float = 1.0) -> Tensor:
    """``argmax_c w_c p_c``, ``w = softmax(-(d - min d) / temperature)`` (paper Eq 3 and 4).

    Args:
        soft: N C h w, probabilities of the warmed-up network.
        distances: N C h w.

    Returns:
        N h w int64.
    """
    nearest = distances.amin(1, keepdim=True)
    return ((-(distances - nearest) / temperature).softmax(1) * soft).argmax(1)
