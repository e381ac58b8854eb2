"""What one step of self-training knows: its images, and what the teacher said of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from udabench.labels import IGNORE
from udabench.method import Event, Panel, Probe, Samples, Scalar
from udabench.parts.self_training import Mixed, PseudoLabels


class Scene:
    """The images of a step by name, and the teacher's claims.

    Attributes:
        label: the source's.
        further: images beside source, target and mixed ones (a method's own), by name.
        pseudo, mixed: None without a target.
        prediction: the student's logits of the mixed image, for a picture.
    """

    def __init__(self, source: Samples, target: Samples | None) -> None:
        if source.label is None:
            raise ValueError("source images need labels")
        self.source, self.target, self.label = source, target, source.label
        self.further: dict[str, Tensor] = {}
        self.pseudo: PseudoLabels | None = None
        self.mixed: Mixed | None = None
        self.prediction: Tensor | None = None

    def image(self, key: str) -> Tensor:
        """N 3 H W of ``source``, ``target``, ``mixed``, or of a further name."""
        found = {
            "source": self.source.image,
            "target": None if self.target is None else self.target.image,
            "mixed": None if self.mixed is None else self.mixed.image,
            **self.further,
        }.get(key)
        if found is None:
            raise ValueError(f"this step has no {key} images")
        return found


def show(scene: Scene, threshold: float) -> Iterator[Event]:
    """Pictures, the share of sure pixels, and the pseudo-labels for the referee."""
    pictures: dict[str, Tensor] = {"source": scene.source.image, **scene.further}
    pseudo, mixed, target = scene.pseudo, scene.mixed, scene.target
    if pseudo is not None and mixed is not None and target is not None:
        pictures |= {"target": target.image, "pseudo_label": pseudo.label, "confidence": pseudo.confidence}
        pictures |= {"mixed": mixed.image, "mixed_label": mixed.label}
        yield Scalar("sure_share", pseudo.share.mean())
        yield Probe("pseudo_label", pseudo.label, target)
        yield Probe("sure_pseudo_label", torch.where(pseudo.confidence >= threshold, pseudo.label, IGNORE), target)
    for name, picture in pictures.items():
        yield Panel(name, picture.detach)
