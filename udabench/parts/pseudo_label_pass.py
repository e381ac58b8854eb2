"""A pass over the whole target that writes pseudo-labels, thresholded by class (BDL, FDA, SAM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from udabench.labels import IGNORE
from udabench.method import Panel, Probe, Samples, Scalar, Workspace
from udabench.parts.losses import upsample
from udabench.parts.thresholds import ClassConfidences, drop_unsure
from udabench.world import meet

Rule = Callable[[ClassConfidences], Tensor]
"""All confidences of the target -> a threshold for each class: C."""
Claim = tuple[Tensor, Tensor]
"""N H W int64 predicted classes, 255 on padding, and N H W float32 probabilities."""


class PseudoLabelPass:
    """A stage's ``prepare``: labels of every target image, 255 where the confidence is below its class's threshold.

    The confidences of all images come first; the rule makes thresholds of them, which are stored as a table; then the
    labels are written. Predictions are kept in between while they are few (as :class:`ClassConfidences` keeps its
    values), else made anew. A pass that was killed goes on: thresholds and labels that are there are not made again.

    Args:
        predict: samples -> probabilities N C h w; the softmax comes before the upsampling (BDL, FDA).
        classes: C.
        rule: see :data:`Rule`.
        artefact: name of the labels, H W; that of the table is ``<artefact>-thresholds``.
        exact: pixels of the target up to which nothing is approximated nor predicted twice.
    """

    def __init__(
        self,
        predict: Callable[[Samples], Tensor],
        classes: int,
        rule: Rule,
        artefact: str = "pseudo_label",
        exact: int = 2**25,
    ) -> None:
        self.predict = predict
        self.classes = classes
        self.rule = rule
        self.artefact = artefact
        self.exact = exact

    def __call__(self, workspace: Workspace) -> Iterator[Scalar | Panel | Probe]:
        kept: dict[str, Claim] = {}
        thresholds = self._thresholds(workspace, kept)
        for samples in workspace.images("target", skip_done=self.artefact):
            name, device = samples.names[0], samples.image.device
            label, confidence = kept.pop(name) if name in kept else self._claim(samples)
            label = drop_unsure(label.long().to(device), confidence.to(device), thresholds)
            workspace.write(self.artefact, name, label[0])
            yield Scalar("labelled", (label != IGNORE).float().mean())
            yield Probe(self.artefact, label, samples)
            yield from _panels(samples, label)

    def _thresholds(self, workspace: Workspace, kept: dict[str, Claim]) -> Tensor:
        """The rule's thresholds, made or read. ``kept`` is filled with the predictions while they are few."""
        table = f"{self.artefact}-thresholds"
        stored = workspace.read_table(table)
        # Of several processes each sees every image, and none writes the table before all have looked for it.
        meet()
        if stored is not None:
            return stored["thresholds"]
        confidences = ClassConfidences(self.classes, self.exact)
        for samples in workspace.images("target"):
            label, confidence = self._claim(samples)
            confidences.add(label, confidence)
            if confidences.exact:
                kept[samples.names[0]] = label.byte().cpu(), confidence.cpu()
            else:
                kept.clear()
        thresholds = self.rule(confidences)
        workspace.write_table(table, {"thresholds": thresholds, "pixels": confidences.counts})
        return thresholds

    def _claim(self, samples: Samples) -> Claim:
        confidence, label = upsample(self.predict(samples).float(), samples.image.shape[-2:]).max(1)
        return label if samples.valid is None else label.masked_fill(~samples.valid, IGNORE), confidence


def _panels(samples: Samples, label: Tensor) -> Iterator[Panel]:
    yield Panel("image", lambda: samples.image)
    yield Panel("pseudo_label", lambda: label)
