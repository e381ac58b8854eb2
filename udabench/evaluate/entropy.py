"""The entropy probe: is a network less certain where it is wrong? (SAM paper, section 5.7.)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from udabench.labels import IGNORE


@dataclass(frozen=True)
class EntropyResult:
    """Mean Shannon entropy in nats; NaN where no image had such a pixel.

    Attributes:
        correct, incorrect: mean over the group's pixels of an image, then over the images that have any.
        images_correct, images_incorrect: numbers of those images.
    """

    correct: float
    incorrect: float
    images_correct: int
    images_incorrect: int


@dataclass
class EntropyProbe:
    """Collects images one by one."""

    correct: list[float] = field(default_factory=list)
    incorrect: list[float] = field(default_factory=list)

    def add(self, entropy: Tensor, prediction: Tensor, truth: Tensor) -> None:
        """One image: H W each; pixels whose truth is 255 belong to neither group."""
        known = truth != IGNORE
        right = known & (prediction == truth)
        for group, values in ((right, self.correct), (known & ~right, self.incorrect)):
            mean = float(torch.where(group, entropy, 0).sum(dtype=torch.float64) / group.sum())
            if not math.isnan(mean):
                values.append(mean)

    def result(self) -> EntropyResult:
        """The means over images."""
        return EntropyResult(_mean(self.correct), _mean(self.incorrect), len(self.correct), len(self.incorrect))


def joined(probes: Sequence[EntropyProbe]) -> EntropyProbe:
    """The images of all of them. Means do not depend on the order."""
    return EntropyProbe(
        [value for probe in probes for value in probe.correct], [value for probe in probes for value in probe.incorrect]
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
