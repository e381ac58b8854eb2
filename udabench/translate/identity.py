"""No translation: the control of every comparison."""

from __future__ import annotations

from torch import Generator as Rng
from torch import Tensor

from udabench.translate.base import Translator


class Identity(Translator):
    """Returns the source."""

    paired = False

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        return source
