"""Which predictions become pseudo-labels: the published rules, as pure functions of the target's confidences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from udabench.labels import IGNORE
from udabench.parts.thresholds import ClassConfidences, drop_unsure, quantile_thresholds


class LabelRule(Protocol):
    """From predictions to labels, in two steps: a threshold for each class of all images, then the labels of one."""

    @property
    def subsample(self) -> int:
        """Every n-th row and column of each image counts for the thresholds."""

    def thresholds(self, confidences: ClassConfidences) -> Tensor:
        """A threshold for each class: C float32."""

    def labels(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        """N C H W probabilities and thresholds C -> N H W int64, 255 where nothing is claimed."""


@dataclass(frozen=True)
class QuantileRule:
    """The rule of BDL and SAM (0.5, 0.9) and of FDA (0.66, 0.9); see :func:`quantile_thresholds`.

    Kept is what reaches the threshold of its most probable class.
    """

    share: float
    cap: float = 1.0
    subsample: int = 1

    def thresholds(self, confidences: ClassConfidences) -> Tensor:
        return quantile_thresholds(confidences, self.share, self.cap)

    def labels(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        confidence, label = probability.max(1)
        return drop_unsure(label, confidence, thresholds)


@dataclass(frozen=True)
class PortionRule:
    """The rule of CBST: ``argmax_c p_c / thr_c``, kept where that reaches 1.

    ``thr_c`` lies at rank ``floor(portion * n)`` (from 1) of the n confidences of the pixels predicted as c, the most
    certain first; rank 0 and a class that is never predicted give 1. A class that is told too seldom is so preferred to
    a more probable one. The code counts one pixel in four: every second row and column.
    """

    portion: float
    subsample: int = 2

    def thresholds(self, confidences: ClassConfidences) -> Tensor:
        rank = (confidences.counts.double() * self.portion).floor().long()
        return confidences.at(confidences.counts - rank).masked_fill(rank == 0, 1)

    def labels(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        ratio, label = scaled(probability, thresholds).max(1)
        return label.masked_fill(ratio < 1, IGNORE)


@dataclass(frozen=True)
class SoftPortionRule(PortionRule):
    """The rule of CRST's label entropy (LRENT): thresholds of :class:`PortionRule`, another choice of pixels.

    Labels are soft, ``y_c = (p_c / thr_c)^(1 / alpha)`` over their sum, and a pixel is kept where that sum exceeds 1:
    there ``sum_c y_c (alpha log y_c - log(p_c / thr_c)) < 0``, as the code asks. The class is that of the largest y_c.
    With an alpha of 1 or more every pixel would be kept: the sum is then at least 1.
    """

    alpha: float = 0.25

    def labels(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        logits = self._logits(probability, thresholds)
        return logits.argmax(1).masked_fill(logits.logsumexp(1) <= 0, IGNORE)

    def soft(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        """y: N C H W, of every pixel."""
        return self._logits(probability, thresholds).softmax(1)

    def _logits(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        return scaled(probability, thresholds).log() / self.alpha


@dataclass(frozen=True)
class TopRule:
    """The rule of DASS, whose labels BiCL calls static: a class's top share, and each image's top share.

    A pixel is kept where the probability of any class reaches that class's threshold, or where it is among the most
    confident ``image_share`` of its image; its label is its most probable class. A class's threshold lies at rank
    ``int(class_share * n)`` (from 1), the most certain first; rank 0 keeps the whole class, and a class that is never
    predicted is reached by nobody.
    """

    class_share: float = 0.1
    image_share: float = 0.1
    subsample: int = 5

    def thresholds(self, confidences: ClassConfidences) -> Tensor:
        rank = (confidences.counts.double() * self.class_share).long()
        place = torch.where(rank == 0, 0, confidences.counts - rank)
        return confidences.at(place).masked_fill(confidences.counts == 0, torch.inf)

    def labels(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        confidence, label = probability.max(1)
        sure = (probability >= _by_class(thresholds, probability)).any(1)
        return label.masked_fill(~(sure | self._among_top(confidence)), IGNORE)

    def _among_top(self, confidence: Tensor) -> Tensor:
        """Whether a pixel is one of its image's most confident: N H W bool. Equals of the last one are kept too."""
        flat = confidence.flatten(1)
        count = int(self.image_share * flat.shape[1])
        if count == 0:
            return torch.zeros_like(confidence, dtype=torch.bool)
        least = flat.topk(count, 1).values[:, -1]
        return confidence >= least[:, None, None]


def scaled(probability: Tensor, thresholds: Tensor) -> Tensor:
    """``p_c / thr_c``: N C H W. A threshold of 0 counts as the smallest number."""
    return probability / _by_class(thresholds, probability).clamp(min=torch.finfo(probability.dtype).tiny)


def _by_class(thresholds: Tensor, like: Tensor) -> Tensor:
    return thresholds.to(like)[:, None, None]
