"""Predictions that collapse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from udabench.labels import IGNORE

DOMINANT = 0.95
"""A class with a larger share of the labelled pixels is suspicious."""
WINDOW = 10
"""Batches that are judged together: a rare class is absent from most single ones."""


class Watchdog:
    """Warns when a class vanishes from the predictions, or one takes nearly all of them. Fed with label maps.

    Args:
        classes: names by id.
        warn: told of each new warning.
    """

    def __init__(self, classes: Sequence[str], warn: Callable[[str], None] = lambda text: None) -> None:
        self.classes = classes
        self.warnings: list[str] = []
        self._warn = warn
        self._counts: dict[str, list[int]] = {}
        self._batches: dict[str, int] = {}
        self._seen: dict[str, list[int]] = {}
        self._told: list[str] = []

    def see_labels(self, what: str, labels: Tensor, iteration: int) -> None:
        """Pseudo-labels of a batch, ids with 255 for unknown; judged each ``WINDOW`` batches."""
        flat = labels.flatten()
        new = torch.bincount(flat[flat != IGNORE], minlength=len(self.classes)).tolist()
        self._counts[what] = [a + b for a, b in zip(self._counts.get(what, [0] * len(new)), new, strict=True)]
        self._batches[what] = self._batches.get(what, 0) + 1
        if self._batches[what] == WINDOW:
            self._judge(what, self._counts.pop(what), iteration)
            self._batches[what] = 0

    def see_matrix(self, what: str, matrix: Tensor, iteration: int) -> None:
        """An evaluation's confusion matrix, C C, predictions in columns; judged at once."""
        self._judge(what, matrix.sum(0).tolist(), iteration)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "warnings": self.warnings,
            "counts": self._counts,
            "batches": self._batches,
            "seen": self._seen,
            "told": self._told,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.warnings = list(state["warnings"])
        self._counts = {key: list(value) for key, value in state["counts"].items()}
        self._batches = dict(state["batches"])
        self._seen = {key: list(value) for key, value in state["seen"].items()}
        self._told = list(state["told"])

    def _judge(self, what: str, counts: Sequence[int], iteration: int) -> None:
        total = sum(counts)
        present = [index for index, count in enumerate(counts) if count > 0]
        for index in present:
            if counts[index] > DOMINANT * total:
                share = 100 * counts[index] / total
                self._tell(f"{what}: class '{self.classes[index]}' holds {share:.1f} % of the pixels", iteration, index)
        seen = self._seen.setdefault(what, [])
        for index in seen:
            if index not in present:
                self._tell(f"{what}: class '{self.classes[index]}' has vanished", iteration, ~index)
        self._seen[what] = sorted({*seen, *present})

    def _tell(self, text: str, iteration: int, about: int) -> None:
        key = f"{text.split(':')[0]}/{about}"
        if key not in self._told:
            self._told.append(key)
            self.warnings.append(f"collapse? {text} (iteration {iteration})")
            self._warn(self.warnings[-1])
