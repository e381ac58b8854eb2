"""The contract of a translation engine: source images take on the target's look; geometry and labels stay."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Generator as Rng
from torch import Tensor, nn


class Translator(nn.Module, ABC):
    """A translation engine. Constructed as ``Translator(**options)``."""

    paired: bool = True
    """Whether it needs target images."""

    @abstractmethod
    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        """Translate.

        Args:
            source: N 3 H W, RGB in [0, 1].
            target: M 3 H' W' in [0, 1], the style; image i goes with image i modulo M. None where unpaired.
            rng: CPU generator for whatever is random.

        Returns:
            N 3 H W in [0, 1].
        """
