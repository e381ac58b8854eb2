"""The pass before stage 1: soft labels of every target image, and the prototypes of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from udabench.errors import DataError
from udabench.labels import IGNORE, LabelSpace
from udabench.method import Noted, Panel, Probe, Remark, Samples, Workspace
from udabench.network import Network, Output
from udabench.parts.grid import masked, nearest
from udabench.parts.soft_labels import SOFT, pack
from udabench.parts.thresholds import ClassConfidences
from udabench.size import Size
from udabench.world import total
from udabench_proda.prototypes import Means, TargetPrototypes, means_of

MEANS, TABLE = "class_means", "prototypes"


def features_of(output: Output) -> Tensor:
    """What prototypes are of: the map that the classifier reads, where the head shows it; else the encoder's last."""
    return output.features[-1] if output.embedding is None else output.embedding


@dataclass
class PrototypePass:
    """A stage's ``prepare``: each image is predicted once; its soft label and its classes' means are written.

    Prototypes are the means of these over all images, in float64. A pass that was killed reads what it had written, and
    finds the same prototypes.

    Attributes:
        network: the warmed-up one.
        prototypes: are begun from the target.
        classes: the task's.
        kept: see :func:`udabench.parts.soft_labels.pack`.
    """

    network: Network
    prototypes: TargetPrototypes
    classes: LabelSpace
    kept: int

    def __call__(self, workspace: Workspace) -> Iterator[Noted]:
        sums = _Sums(self.prototypes)
        for samples in workspace.images("target", share=True):
            if not workspace.has(SOFT, samples.names[0]):
                self._write(workspace, samples)
            means, plain = self._read(workspace, samples)
            sums.add(means)
            yield from _report(masked(nearest(plain, Size(*samples.image.shape[-2:])), samples), samples)
        means = sums.means()
        self.prototypes.begin(means)
        workspace.write_table(TABLE, {"prototypes": means.values[0].float(), "cells": means.cells[0]})
        yield from self._absent()

    def _write(self, workspace: Workspace, samples: Samples) -> None:
        output = self.network(samples.image)
        logits, name = output.logits.float(), samples.names[0]
        label = masked(logits.argmax(1), samples)
        means = means_of(features_of(output), label, len(self.classes))
        # The soft label comes last: where it is, both are.
        workspace.write(MEANS, name, torch.cat([means.values[0], means.cells[0][:, None]], 1))
        workspace.write(SOFT, name, pack(logits.softmax(1)[0], self.kept))

    def _read(self, workspace: Workspace, samples: Samples) -> tuple[Means, Tensor]:
        """The means as they were written, and the likeliest class of each cell, 1 h w. Raises DataError."""
        stored, name = workspace.read(MEANS, samples.names[0]), samples.names[0]
        classes, channels = self.prototypes.values.shape
        if tuple(stored.shape) != (classes, channels + 1):
            raise DataError(
                f"The means of '{name}' are of {stored.shape[0]} classes with {stored.shape[1] - 1} channels; this "
                f"task has {classes}, and its network {channels}. Remove the artefacts {MEANS} and {SOFT} and resume."
            )
        stored = stored.to(samples.image.device)
        return Means(stored[None, :, :-1], stored[None, :, -1]), workspace.read(SOFT, name)[:1].to(stored.device)

    def _absent(self) -> Iterator[Remark]:
        names = [
            name for name, known in zip(self.classes.names, self.prototypes.known.tolist(), strict=True) if not known
        ]
        if names:
            yield Remark(
                f"No prototype: too little of the target is predicted as {', '.join(names)}. No label becomes one of "
                "these until the teacher predicts some."
            )


def _report(label: Tensor, samples: Samples) -> Iterator[Noted]:
    yield Probe("plain", label, samples)
    yield Panel("plain", lambda: label)


class _Sums:
    """Of means over images, in float64; of one rank until they are read."""

    def __init__(self, prototypes: TargetPrototypes) -> None:
        self.by_pixels, self.least = prototypes.mean == "pixels", prototypes.least
        self.sums = prototypes.values.new_zeros(prototypes.values.shape, dtype=torch.float64)
        self.weights = self.sums.new_zeros(len(self.sums))
        self.cells = self.sums.new_zeros(len(self.sums))

    def add(self, means: Means) -> None:
        cells = means.cells[0].double()
        weights = cells if self.by_pixels else (cells >= self.least).double()
        self.sums += weights[:, None] * means.values[0].double()
        self.weights += weights
        self.cells += cells * (weights > 0)

    def means(self) -> Means:
        weights = total(self.weights).clamp(min=1)
        return Means((total(self.sums) / weights[:, None])[None], total(self.cells)[None])


@dataclass(frozen=True)
class SureRule:
    """Labels of distillation: the most probable class where its probability exceeds one threshold for all classes."""

    threshold: float
    subsample: int = 1

    def thresholds(self, confidences: ClassConfidences) -> Tensor:
        return torch.full((len(confidences.counts),), self.threshold)

    def labels(self, probability: Tensor, thresholds: Tensor) -> Tensor:
        confidence, label = probability.max(1)
        return label.masked_fill(confidence <= self.threshold, IGNORE)
