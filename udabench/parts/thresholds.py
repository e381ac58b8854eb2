"""Thresholds of offline pseudo-labels, by class: order statistics of the confidences of a whole data set."""

from __future__ import annotations

import torch
from torch import Tensor

from udabench.labels import IGNORE


class ClassConfidences:
    """Confidences of predicted pixels by class, and their order statistics, in bounded memory.

    Up to ``exact`` pixels every value is kept (5 bytes each) and the statistics are exact. Beyond, a histogram is kept
    whose statistics are the lower edge of the bin: at most ``1 / bins`` below the exact one, never above it.

    Args:
        classes: number of classes.
        exact: pixels up to which values are kept.
        bins: of equal width over [0, 1], for each class.

    Attributes:
        counts: C int64, pixels predicted as each class.
    """

    def __init__(self, classes: int, exact: int = 2**25, bins: int = 2**16) -> None:
        self.counts = torch.zeros(classes, dtype=torch.int64)
        self._limit = exact
        self._bins = bins
        self._values: list[tuple[Tensor, Tensor]] | None = []
        self._histogram: Tensor | None = None

    @property
    def exact(self) -> bool:
        """Whether all values are kept."""
        return self._values is not None

    def add(self, label: Tensor, confidence: Tensor) -> None:
        """Pixels of any shape: predicted classes (255: left out), and their probabilities in [0, 1]."""
        known = label != IGNORE
        values = label[known].to("cpu", torch.uint8), confidence[known].to("cpu", torch.float32)
        self.counts += values[0].long().bincount(minlength=len(self.counts))
        if self._values is None:
            self._fold(*values)
        else:
            self._values.append(values)
            if self.counts.sum() > self._limit:
                self._bin()

    def at(self, rank: Tensor) -> Tensor:
        """The value at a 0-based place in each class's ascending order: C int64 -> C float32.

        A place behind the last is the last; a class without pixels gets 0.
        """
        place = rank.minimum(self.counts - 1).clamp(min=0)
        found = self._binned(place) if self._values is None else self._sorted(self._values, place)
        return found.masked_fill(self.counts == 0, 0)

    def _bin(self) -> None:
        """From now on a histogram."""
        self._histogram = torch.zeros(len(self.counts), self._bins, dtype=torch.int64)
        kept, self._values = self._values or (), None
        for each in kept:
            self._fold(*each)

    def _fold(self, label: Tensor, confidence: Tensor) -> None:
        assert self._histogram is not None
        place = (confidence.double() * self._bins).long().clamp(0, self._bins - 1)
        flat = label.long() * self._bins + place
        self._histogram += flat.bincount(minlength=self._histogram.numel()).view_as(self._histogram)

    def _binned(self, place: Tensor) -> Tensor:
        assert self._histogram is not None
        ends = self._histogram.cumsum(1)
        return torch.searchsorted(ends, place[:, None], right=True)[:, 0].float() / self._bins

    def _sorted(self, kept: list[tuple[Tensor, Tensor]], place: Tensor) -> Tensor:
        """One sort for all classes, by a key that puts each class into a range of its own (exact in float64)."""
        if not self.counts.any():
            return torch.zeros(len(self.counts))
        keys = torch.cat([2 * label.double() + confidence.double() for label, confidence in kept])
        keys.numpy().sort()
        first = self.counts.cumsum(0) - self.counts
        found = keys[(first + place).clamp(max=len(keys) - 1)] - 2 * torch.arange(len(self.counts))
        return found.float()


def quantile_thresholds(confidences: ClassConfidences, share: float, cap: float = 1.0) -> Tensor:
    """The rule of BDL and FDA: each class's value at ``round(share * n)`` of its n ascending confidences, at most cap.

    The top ``1 - share`` of a class's pixels are kept, and more where the cap is lower. FDA: share 0.66, cap 0.9 (its
    code keeps the top 34 %); BDL and SAM: 0.5, 0.9. Rounds half to even, as NumPy does; where that lies behind the
    last value (n = 1), the last is taken. A class that is never predicted gets 0.

    Returns:
        C float32.
    """
    return confidences.at((confidences.counts.double() * share).round().long()).clamp(max=cap)


def drop_unsure(label: Tensor, confidence: Tensor, thresholds: Tensor) -> Tensor:
    """Labels, with 255 where the confidence is below the threshold of the label's class (kept where equal).

    Args:
        label: any shape, int64; 255 stays.
        confidence: likewise, float.
        thresholds: C.
    """
    needed = thresholds.to(confidence)[label.clamp(max=len(thresholds) - 1)]
    return label.masked_fill(confidence < needed, IGNORE)
