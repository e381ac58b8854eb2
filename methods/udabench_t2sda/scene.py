"""What one step knows: its images, and what the teacher said of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from udabench.labels import IGNORE
from udabench.method import Event, Panel, Probe, Samples, Scalar
from udabench.parts.self_training import Mixed, PseudoLabels
from udabench_t2sda.contrast import Target


class Scene:
    """The images of a step by the names of the configuration, and the teacher's claims.

    Attributes:
        translated: the source crops in the target's look.
        pseudo, mixed: of self-training; None without a target.
        confidence: mean confidence of each class and whether it is present, at full resolution (Eq 13).
        target_view: the teacher's look at the target on the feature grid.
        prediction: the student's logits of the mixed image, for a picture.
    """

    def __init__(self, source: Samples, target: Samples | None) -> None:
        if source.label is None:
            raise ValueError("source images need labels")
        self.source, self.target, self.label = source, target, source.label
        self.translated: Tensor | None = None
        self.pseudo: PseudoLabels | None = None
        self.mixed: Mixed | None = None
        self.confidence: tuple[Tensor, Tensor] | None = None
        self.target_view: Target | None = None
        self.prediction: Tensor | None = None

    def image(self, key: str) -> Tensor:
        """N 3 H W of ``source``, ``pseudo_target``, ``target`` or ``mixed``."""
        found = {
            "source": self.source.image,
            "pseudo_target": self.translated,
            "target": None if self.target is None else self.target.image,
            "mixed": None if self.mixed is None else self.mixed.image,
        }[key]
        if found is None:
            raise ValueError(f"this step has no {key} images")
        return found


def show(scene: Scene, threshold: float) -> Iterator[Event]:
    """Pictures, the share of sure pixels, and the pseudo-labels for the referee."""
    pictures: dict[str, Tensor | None] = {"source": scene.source.image, "translated": scene.translated}
    pseudo, mixed, target = scene.pseudo, scene.mixed, scene.target
    if pseudo is not None and mixed is not None and target is not None:
        pictures |= {"target": target.image, "pseudo_label": pseudo.label, "confidence": pseudo.confidence}
        pictures |= {"mixed": mixed.image, "mixed_label": mixed.label}
        yield Scalar("sure_share", pseudo.share.mean())
        yield Probe("pseudo_label", pseudo.label, target)
        yield Probe("sure_pseudo_label", torch.where(pseudo.confidence >= threshold, pseudo.label, IGNORE), target)
    for name, picture in pictures.items():
        if picture is not None:
            yield Panel(name, picture.detach)
