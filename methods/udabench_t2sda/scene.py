"""What one step of T2S-DA knows beside what self-training does."""

from __future__ import annotations

from torch import Tensor

from udabench.method import Samples
from udabench.parts.scene import Scene
from udabench_t2sda.contrast import Target

TRANSLATED = "translated"
"""Name of the source crops in the target's look; the configuration calls them ``pseudo_target``."""


class PullScene(Scene):
    """The images of a step by the names of the configuration, and the teacher's claims.

    Attributes:
        confidence: mean confidence of each class and whether it is present, at full resolution (Eq 13).
        target_view: the teacher's look at the target on the feature grid.
        source_map: the teacher's features of the source, where it saw them together with the target.
    """

    def __init__(self, source: Samples, target: Samples | None) -> None:
        super().__init__(source, target)
        self.confidence: tuple[Tensor, Tensor] | None = None
        self.target_view: Target | None = None
        self.source_map: Tensor | None = None

    def image(self, key: str) -> Tensor:
        return super().image(TRANSLATED if key == "pseudo_target" else key)
