"""Scores a Probe against the truth, which no method sees. What it finds goes to the log and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from udabench.errors import PluginError
from udabench.labels import IGNORE
from udabench.method import Probe, Samples

Truth = Callable[[Samples], Tensor]
"""The true labels of samples, N H W, task ids with 255 for unknown, on any device, cut and flipped as the samples."""


class Referee:
    """Owns the way to the truth.

    Args:
        classes: number of outputs.
        truth: called only when a method yields a Probe on a step that is logged; None: only the density is known.
    """

    def __init__(self, classes: int, truth: Truth | None = None) -> None:
        self.classes = classes
        self._truth = truth

    @torch.no_grad()
    def score(self, probe: Probe) -> Mapping[str, Tensor]:
        """``density``: share of the pixels that are claimed; ``accuracy``: share of the claimed and known pixels that
        are right; ``miou``: mean over classes that are claimed or true there. NaN where nothing is claimed.

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
        scores = {"density": claimed.sum() / valid.sum()}
        if self._truth is not None:
            truth = self._truth(probe.samples).to(probe.labels.device).long()
            matrix = self._matrix(truth, probe.labels.long(), claimed & (truth != IGNORE))
            right, union = matrix.diagonal(), matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
            scores["accuracy"] = right.sum() / matrix.sum()
            scores["miou"] = (right / union).nanmean()
        return scores

    def _matrix(self, truth: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        index = truth[where] * self.classes + labels[where]
        return torch.bincount(index, minlength=self.classes**2).view(self.classes, self.classes).double()
