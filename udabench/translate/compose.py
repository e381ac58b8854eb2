"""Engines made of others: one after the other, or one of them by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.method import Samples
from udabench.translate.base import Make, Translator


class _Composed(Translator):
    """Several engines. Paired if any of them is.

    Args:
        engines: each a name, or ``{name: ..., <option>: ...}``.
    """

    def __init__(self, engines: Sequence[Translator]) -> None:
        super().__init__()
        self.engines = nn.ModuleList(engines)
        self.paired = any(engine.paired for engine in engines)

    @classmethod
    def create(cls, options: Mapping[str, Any], make: Make) -> Self:
        engines = options.get("engines")
        if not isinstance(engines, Sequence) or isinstance(engines, str) or not engines:
            raise UsageError(
                f"Translator '{cls.__name__.lower()}' takes a list of engines, not {engines!r}: "
                "engines: [fda_style, {name: gaussian_blur, chance: 1}]."
            )
        return cls([_make_one(engine, make) for engine in engines])

    def _all(self) -> list[Translator]:
        return [engine for engine in self.engines if isinstance(engine, Translator)]


class Chain(_Composed):
    """All engines in turn; those after the first see the crop as the one before left it, without a larger context."""

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        for engine in self.engines:
            source = engine(source, target if engine.paired else None, rng)
        return source

    def translate(self, source: Samples, target: Samples | None, rng: Rng) -> Tensor:
        for engine in self._all():
            image = engine.translate(source, target if engine.paired else None, rng)
            source = source._replace(image=image, context=None)
        return source.image


class Choice(_Composed):
    """One engine at a time, drawn for each batch, all with the same chance."""

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        engine = self._draw(rng)
        translated: Tensor = engine(source, target if engine.paired else None, rng)
        return translated

    def translate(self, source: Samples, target: Samples | None, rng: Rng) -> Tensor:
        engine = self._draw(rng)
        return engine.translate(source, target if engine.paired else None, rng)

    def _draw(self, rng: Rng) -> Translator:
        engines = self._all()
        return engines[int(torch.randint(len(engines), (), generator=rng))]


def _make_one(engine: Any, make: Make) -> Translator:
    if isinstance(engine, str):
        return make(engine, {})
    if isinstance(engine, Mapping) and isinstance(engine.get("name"), str):
        return make(engine["name"], {key: value for key, value in engine.items() if key != "name"})
    raise UsageError(f"An engine is a name or {{name: ..., <option>: ...}}, not {engine!r}.")
