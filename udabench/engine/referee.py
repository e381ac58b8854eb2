"""Scores a Probe against the truth, which no method sees. What it finds goes to the log and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from udabench.errors import PluginError
from udabench.labels import IGNORE
from udabench.method import Probe, Samples

Truth = Callable[[Samples], Tensor]
"""The true labels of samples, N H W, task ids with 255 for unknown, on any device, cut and flipped as the samples."""


class Tally(NamedTuple):
    """What was counted of probes; tallies of one name add up.

    Attributes:
        claimed, valid: pixels that the labels claim, and pixels that are no padding.
        matrix: C C, truth in rows, of the claimed pixels whose truth is known; None without a truth.
    """

    claimed: Tensor
    valid: Tensor
    matrix: Tensor | None

    def __add__(self, other: Tally) -> Tally:  # type: ignore[override]
        matrix = None if self.matrix is None or other.matrix is None else self.matrix + other.matrix
        return Tally(self.claimed + other.claimed, self.valid + other.valid, matrix)

    def cpu(self) -> Tally:
        """On the CPU."""
        return Tally(self.claimed.cpu(), self.valid.cpu(), None if self.matrix is None else self.matrix.cpu())

    def scores(self) -> Mapping[str, Tensor]:
        """``density``: share of the pixels that are claimed; ``accuracy``: share of the claimed and known pixels that
        are right; ``miou``: mean over classes that are claimed or true there. NaN where nothing is claimed."""
        scores = {"density": self.claimed / self.valid}
        if self.matrix is not None:
            right = self.matrix.diagonal()
            union = self.matrix.sum(0) + self.matrix.sum(1) - right
            scores["accuracy"] = right.sum() / self.matrix.sum()
            scores["miou"] = (right / union).nanmean()
        return scores


def scores_of(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """The scores of probes, by their names in the log."""
    return {
        f"probe/{name}/{key}": float(value) for name, tally in tallies.items() for key, value in tally.scores().items()
    }


class Referee:
    """Owns the way to the truth.

    Args:
        classes: number of outputs.
        truth: called only when a method yields a Probe on a step that is logged; None: only the density is known.
    """

    def __init__(self, classes: int, truth: Truth | None = None) -> None:
        self.classes = classes
        self._truth = truth
        self._last: tuple[Samples, Tensor] | None = None

    def score(self, probe: Probe) -> Mapping[str, Tensor]:
        """One probe alone; see :meth:`Tally.scores`. Raises PluginError."""
        return self.count(probe).scores()

    @torch.no_grad()
    def count(self, probe: Probe) -> Tally:
        """What a probe adds.

        Raises:
            PluginError: the labels are not on the samples' grid.
        """
        image = probe.samples.image
        if probe.labels.shape != (image.shape[0], *image.shape[2:]):
            raise PluginError(
                f"The Probe '{probe.name}' has labels of shape {tuple(probe.labels.shape)} for images of shape "
                f"{tuple(image.shape)}. Resize them (nearest) to N H W of the crop."
            )
        valid = torch.ones_like(probe.labels, dtype=torch.bool) if probe.samples.valid is None else probe.samples.valid
        claimed = (probe.labels != IGNORE) & valid
        if self._truth is None:
            return Tally(claimed.sum(), valid.sum(), None)
        truth = self._true(probe.samples, self._truth).to(probe.labels.device).long()
        matrix = self._matrix(truth, probe.labels.long(), claimed & (truth != IGNORE))
        return Tally(claimed.sum(), valid.sum(), matrix)

    def _true(self, samples: Samples, truth: Truth) -> Tensor:
        """Several probes of the same samples, one after the other, open their labels once."""
        if self._last is None or self._last[0] is not samples:
            self._last = samples, truth(samples)
        return self._last[1]

    def _matrix(self, truth: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        index = truth[where] * self.classes + labels[where]
        return torch.bincount(index, minlength=self.classes**2).view(self.classes, self.classes).double()
