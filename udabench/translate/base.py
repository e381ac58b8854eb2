"""The contract of a translation engine: source images take on the target's look; geometry and labels stay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Generator as Rng
from torch import Tensor, nn

if TYPE_CHECKING:
    from udabench.method import Samples

Make = Callable[[str, Mapping[str, Any]], "Translator"]
"""``make(name, options)``: another engine from the registry."""


class Translator(nn.Module, ABC):
    """A translation engine. Constructed as ``Translator(**options)``; raises UsageError for a value out of bounds."""

    paired: bool = True
    """Whether it needs target images."""

    @classmethod
    def create(cls, options: Mapping[str, Any], make: Make) -> Translator:
        """Construct from options as a configuration has them. To be overridden by engines that are made of others."""
        return cls(**options)

    @abstractmethod
    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        """Translate.

        Args:
            source: N 3 H W, RGB in [0, 1].
            target: M 3 H' W' in [0, 1], the style; see :func:`udabench.translate.draws.partners`. None where
                unpaired.
            rng: CPU generator for whatever is random; see :func:`udabench.translate.draws.draw_rows`.

        Returns:
            N 3 H W in [0, 1].
        """

    def translate(self, source: Samples, target: Samples | None, rng: Rng) -> Tensor:
        """Translate the crops of ``source``: N 3 H W. To be overridden where names or positions are needed.

        Where the samples carry a larger context, that is translated, in the style of the target's context, and the
        crop is taken out of the result.
        """
        from udabench.translate.apply import translate_crops

        return translate_crops(self, source, target, rng)

    def check(self, names: Sequence[str]) -> None:
        """Raises DataError where images of these names could not be translated. Called once, before the training, on
        every engine that is a submodule of the method."""
