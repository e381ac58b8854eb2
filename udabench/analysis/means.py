"""Sums over the pixels of each class, in float64, a part of an image at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

NUMBERS = 2**18
"""Feature values that are taken to float64 at once: 2 MiB, which stay in a processor's cache."""


def labelled_pixels(features: Tensor, grid: Tensor, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The labelled pixels of an image in parts: n D float64, and n int64. 255 is dropped.

    Args:
        features: D h w.
        grid: h w int64.
    """
    flat, label = features.flatten(1), grid.flatten()
    known = (label < classes).nonzero().flatten()
    step = max(1, NUMBERS // len(flat))
    for start in range(0, len(known), step):
        part = known[start : start + step]
        yield flat[:, part].T.double(), label[part]


class ClassSums:
    """For each class, the sum of what is added for its pixels, and their number. Size C D, however many are added."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.sums: Tensor | None = None
        self.counts = torch.zeros(classes, dtype=torch.float64)

    def add(self, values: Tensor, label: Tensor) -> None:
        """n D float64 (or n) values of pixels of n classes."""
        # A product of matrices instead of index_add: the same sum each time on a GPU as well.
        member = one_hot(label, self.classes).double()
        sums, counts = member.T @ values, member.sum(0)
        self.sums = sums if self.sums is None else self.sums.add_(sums)
        self.counts = self.counts.to(counts.device).add_(counts)

    def means(self) -> Tensor:
        """C D (or C) float64; NaN for a class that never occurred."""
        if self.sums is None:
            return torch.full((self.classes, 1), torch.nan, dtype=torch.float64)
        counts = self.counts if self.sums.dim() == 1 else self.counts[:, None]
        return self.sums / counts


def mean_over_known(values: Tensor) -> float:
    """Mean over the classes that have a finite value; NaN where none has."""
    return float(values[values.isfinite()].mean()) if values.isfinite().any() else float("nan")
