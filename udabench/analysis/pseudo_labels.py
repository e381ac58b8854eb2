"""Pseudo-labels of the images that were adapted to: how many are sure, and how many of those are right.

BiCL (Table 4) reports both for a whole set; here by class. The truth is asked for by the analysis alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from udabench.analysis.base import Analysis, Place, Seen, Subject
from udabench.config import Section, setting
from udabench.labels import IGNORE

USUAL = 0.968
"""Of DACS and all that follow it."""


class PseudoLabelsConfig(Section):
    threshold: float | None = setting(
        None, "confidence from which on a pixel is sure; none: the run's own threshold, else 0.968 (DACS)", ge=0, le=1
    )


class PseudoLabels(Analysis):
    """For each claimed class: share of all pixels, density (sure ones among them), accuracy (right ones among those
    that are sure and whose truth is known)."""

    Config = PseudoLabelsConfig
    config: PseudoLabelsConfig
    rounds: ClassVar[tuple[tuple[Place, ...], ...]] = (("adapted",),)
    bars: ClassVar[Mapping[str, str]] = {"density": "density", "accuracy": "accuracy of sure pixels"}

    def __init__(self, config: PseudoLabelsConfig, subject: Subject) -> None:
        super().__init__(config, subject)
        own = getattr(subject.config.settings, "threshold", USUAL)
        self.threshold = float(own if config.threshold is None else config.threshold)
        self.counts = torch.zeros(4, self.classes, dtype=torch.int64)

    def look(self, seen: Seen, turn: int) -> None:
        label, sure = seen.claim.label, seen.claim.confidence >= self.threshold
        truth = torch.full_like(label, IGNORE) if seen.truth is None else seen.truth
        known = sure & (truth != IGNORE)
        groups = (torch.ones_like(sure), sure, known, known & (label == truth))
        self.counts += torch.stack([self._count(label[group]) for group in groups]).cpu()

    def _count(self, label: Tensor) -> Tensor:
        return torch.bincount(label.long(), minlength=self.classes)

    def table(self) -> pd.DataFrame:
        claimed, sure, known, right = self.counts.double()
        columns = {"share": claimed / claimed.sum(), "density": sure / claimed, "accuracy": right / known}
        total, all_sure, all_known, all_right = self.counts.double().sum(1)
        last = {"share": 1.0, "density": float(all_sure / total), "accuracy": float(all_right / all_known)}
        return self.by_class("all", columns, last)

    def notes(self) -> Mapping[str, Any]:
        return {"threshold": self.threshold, "sure pixels with a known truth": int(self.counts[2].sum())}
