"""Predictions that collapse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from udabench.labels import IGNORE

DOMINANT = 0.95
"""A class with a larger share of the claimed pixels is suspicious."""
CLAIMED = 0.1
"""Least share of all pixels that labels must claim before one class's share of them says anything."""
HELD = 0.001
"""A class that never had this share of the pixels cannot vanish: it may be missing by chance."""
WINDOW = 200
"""Batches of pseudo-labels that are judged together: a rare class is absent from most of a few."""


class Watchdog:
    """Warns when a class vanishes from the predictions, or one takes nearly all of them.

    Args:
        classes: names by id.
        warn: told of each new warning.
    """

    def __init__(self, classes: Sequence[str], warn: Callable[[str], None] = lambda text: None) -> None:
        self.classes = classes
        self.warnings: list[str] = []
        self._warn = warn
        self._counts: dict[str, list[int]] = {}
        self._pixels: dict[str, int] = {}
        self._batches: dict[str, int] = {}
        self._held: dict[str, list[int]] = {}
        self._told: list[str] = []

    def see_labels(self, what: str, labels: Tensor, iteration: int) -> None:
        """Pseudo-labels of a batch, ids with 255 for unknown; judged each ``WINDOW`` batches."""
        flat = labels.flatten()
        new = torch.bincount(flat[flat != IGNORE], minlength=len(self.classes)).tolist()
        self._counts[what] = [a + b for a, b in zip(self._counts.get(what, [0] * len(new)), new, strict=True)]
        self._pixels[what] = self._pixels.get(what, 0) + flat.numel()
        self._batches[what] = self._batches.get(what, 0) + 1
        if self._batches[what] == WINDOW:
            counts, pixels = self._counts.pop(what), self._pixels.pop(what)
            if sum(counts) >= CLAIMED * pixels:
                self._judge_dominance(what, counts, iteration)
            self._judge_vanishing(what, [count / pixels for count in counts], iteration)
            self._batches[what] = 0

    def see_matrix(self, what: str, matrix: Tensor, iteration: int) -> None:
        """An evaluation's confusion matrix, C C, truth in rows and predictions in columns; judged at once."""
        total = max(float(matrix.sum()), 1.0)
        predicted, true = matrix.sum(0).tolist(), matrix.sum(1).tolist()
        # Where one class is nearly all of the truth, predicting it is right.
        if max(true) <= DOMINANT * total:
            self._judge_dominance(what, predicted, iteration)
        self._judge_vanishing(what, [count / total for count in predicted], iteration, true)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "warnings": self.warnings,
            "counts": self._counts,
            "pixels": self._pixels,
            "batches": self._batches,
            "held": self._held,
            "told": self._told,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.warnings = list(state["warnings"])
        self._counts = {key: list(value) for key, value in state["counts"].items()}
        self._pixels = dict(state["pixels"])
        self._batches = dict(state["batches"])
        self._held = {key: list(value) for key, value in state["held"].items()}
        self._told = list(state["told"])

    def _judge_dominance(self, what: str, counts: Sequence[int], iteration: int) -> None:
        total = sum(counts)
        for index, count in enumerate(counts):
            if count > DOMINANT * total:
                share = 100 * count / total
                self._tell(f"{what}: class '{self.classes[index]}' holds {share:.1f} % of the pixels", iteration, index)

    def _judge_vanishing(
        self, what: str, shares: Sequence[float], iteration: int, true: Sequence[int] | None = None
    ) -> None:
        """``true``: pixels of each class in the truth, where it is known; what is not there may be missed."""
        held = self._held.setdefault(what, [])
        for index in held:
            if shares[index] == 0 and (true is None or true[index] > 0):
                self._tell(f"{what}: class '{self.classes[index]}' has vanished", iteration, ~index)
        self._held[what] = sorted({*held, *(index for index, share in enumerate(shares) if share > HELD)})

    def _tell(self, text: str, iteration: int, about: int) -> None:
        key = f"{text.split(':')[0]}/{about}"
        if key not in self._told:
            self._told.append(key)
            self.warnings.append(f"collapse? {text} (iteration {iteration})")
            self._warn(self.warnings[-1])
