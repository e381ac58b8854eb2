"""A pass over the whole target that writes pseudo-labels, by whatever rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from udabench.errors import UsageError
from udabench.labels import IGNORE, LabelSpace
from udabench.method import Panel, Probe, Remark, Samples, Scalar, Workspace
from udabench.parts.grid import masked
from udabench.parts.label_rules import LabelRule
from udabench.parts.losses import upsample
from udabench.parts.thresholds import ClassConfidences
from udabench.world import meet, total

Form = Callable[[Tensor, Tensor], Tensor]
"""Probabilities C H W and thresholds C of one image -> what else is stored of it (see :meth:`Workspace.write`)."""
Views = tuple[Tensor, ...]


def only_view(views: Views, size: tuple[int, ...]) -> Tensor:
    """Probabilities of one view, upsampled: the softmax comes before the upsampling (BDL, FDA)."""
    return upsample(views[0].float(), size)


@dataclass
class PseudoLabelPass:
    """A stage's ``prepare``: labels of every target image, 255 where the rule claims nothing.

    The confidences of all images come first; the rule makes thresholds of them, which are stored as a table; then the
    labels are written. Predictions are kept in between while they are few, else made anew. A pass that was killed goes
    on: thresholds and labels that are there are not made again, and what is logged is of all images all the same.

    Attributes:
        predict: samples -> probabilities N C h w, or views of another kind that ``expand`` understands. They are what
            is kept between the two walks over the images, so they are better small.
        classes: the task's.
        rule: see :mod:`udabench.parts.label_rules`.
        artefact: name of the labels, H W; that of the table is ``<artefact>-thresholds``: ``thresholds``, and how many
            ``pixels`` were predicted as each class.
        also: further artefacts of each image, written before its labels.
        exact: pixels up to which thresholds are exact; beyond, see :class:`ClassConfidences`.
        keep: bytes of predictions; images beyond are predicted twice.
        expand: views and the image's size -> probabilities N C H W.
    """

    predict: Callable[[Samples], Tensor | Views]
    classes: LabelSpace
    rule: LabelRule
    artefact: str = "pseudo_label"
    also: Mapping[str, Form] = field(default_factory=dict)
    exact: int = 2**25
    keep: int = 2**28
    expand: Callable[[Views, tuple[int, ...]], Tensor] = only_view

    def __call__(self, workspace: Workspace) -> Iterator[Scalar | Panel | Probe | Remark]:
        kept: dict[str, Views] = {}
        table = self.table(workspace, kept)
        labelled = torch.zeros_like(table["pixels"])
        for samples in workspace.images("target", share=True):
            label = self._label(workspace, samples, table["thresholds"], kept.pop(samples.names[0], None))
            counts = self._counts(label)
            labelled += counts.cpu()
            yield from self._report(samples, label, counts)
        yield from self._losers(table, total(labelled))

    # Thresholds

    def table(self, workspace: Workspace, kept: dict[str, Views] | None = None) -> Mapping[str, Tensor]:
        """``thresholds`` and ``pixels``, made or read. ``kept`` is filled with predictions, as many as it may hold."""
        name = f"{self.artefact}-thresholds"
        stored = workspace.read_table(name)
        # Of several processes each sees every image, and none writes the table before all have looked for it.
        meet()
        if stored is not None:
            return stored
        confidences, pixels = ClassConfidences(len(self.classes), self.exact), torch.zeros(len(self.classes)).long()
        kept, room = {} if kept is None else kept, self.keep
        for samples in workspace.images("target"):
            views = self._views(samples)
            confidence, label = self.expand(views, samples.image.shape[-2:]).max(1)
            label = masked(label, samples)
            pixels += self._counts(label).cpu()
            step = slice(None, None, self.rule.subsample)
            confidences.add(label[:, step, step], confidence[:, step, step])
            room -= sum(view.nbytes for view in views)
            if room >= 0:
                kept[samples.names[0]] = tuple(view.cpu() for view in views)
        table = {"thresholds": self.rule.thresholds(confidences), "pixels": pixels}
        workspace.write_table(name, table)
        return table

    # Labels

    def _label(self, workspace: Workspace, samples: Samples, thresholds: Tensor, kept: Views | None) -> Tensor:
        """An image's labels, N H W: read where they are there, else made and written."""
        name, device = samples.names[0], samples.image.device
        if workspace.has(self.artefact, name):
            return workspace.read(self.artefact, name)[None].to(device)
        views = self._views(samples) if kept is None else tuple(view.to(device) for view in kept)
        probability = self.expand(views, samples.image.shape[-2:])
        limits = thresholds.to(device)
        label = masked(self.rule.labels(probability, limits), samples)
        for artefact, form in self.also.items():
            workspace.write(artefact, name, form(probability[0], limits))
        workspace.write(self.artefact, name, label[0])
        return label

    def _views(self, samples: Samples) -> Views:
        predicted = self.predict(samples)
        return predicted if isinstance(predicted, tuple) else (predicted,)

    def _report(self, samples: Samples, label: Tensor, counts: Tensor) -> Iterator[Scalar | Panel | Probe]:
        pixels = label.numel() if samples.valid is None else samples.valid.sum()
        yield Scalar(f"{self.artefact}/density", counts.sum() / pixels)
        for name, count in zip(self.classes.names, counts, strict=True):
            yield Scalar(f"{self.artefact}/share/{name}", count / pixels)
        yield Probe(self.artefact, label, samples)
        yield Panel("image", lambda: samples.image)
        yield Panel(self.artefact, lambda: label)

    def _losers(self, table: Mapping[str, Tensor], labelled: Tensor) -> Iterator[Remark]:
        """Classes that were predicted and are nowhere labelled. Raises UsageError where nothing is labelled at all."""
        predicted, thresholds = table["pixels"], table["thresholds"]
        lost = ((labelled == 0) & (predicted > 0)).nonzero()[:, 0].tolist()
        said = ", ".join(
            f"{self.classes.names[c]} ({int(predicted[c])} pixels, threshold {float(thresholds[c]):.4g})" for c in lost
        )
        if not labelled.any():
            raise UsageError(
                f"The thresholds of '{self.artefact}' keep no pixel of the target: {said}. {self.rule} is too strict "
                "for so few images: let it keep a larger share."
            )
        if lost:
            yield Remark(f"{self.artefact}: predicted, but nothing kept: {said}")

    def _counts(self, label: Tensor) -> Tensor:
        return label[label != IGNORE].bincount(minlength=len(self.classes))


def confidence_levels(probability: Tensor, thresholds: Tensor) -> Tensor:
    """A :data:`Form`: the largest probability of each pixel in steps of 1/255 (a PNG holds it), H W int64."""
    return (probability.amax(0) * 255).round().long()
