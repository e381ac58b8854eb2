"""Factors for scale jitter, as configs write them: ``0.8, 1, 1.2`` (one of these) or ``0.5-1.5`` (anything between)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

if TYPE_CHECKING:
    import numpy as np

LEAST, MOST = 0.1, 10.0
"""Factors beyond these are slips of the pen."""


@dataclass(frozen=True)
class Scales:
    """What a factor is drawn from.

    Attributes:
        factors: the choices, or the two ends of a range, ascending.
        between: whether they are the ends of a range.
    """

    factors: tuple[float, ...]
    between: bool = False

    def __str__(self) -> str:
        return ("-" if self.between else ", ").join(str(factor).removesuffix(".0") for factor in self.factors)

    @property
    def least(self) -> float:
        """The smallest factor."""
        return min(self.factors)

    def draw(self, rng: np.random.Generator) -> float:
        """One factor, uniformly."""
        if self.between:
            return float(rng.uniform(self.factors[0], self.factors[-1]))
        return self.factors[int(rng.integers(len(self.factors)))]

    @classmethod
    def parse(cls, value: object) -> Scales:
        """From ``"0.5-1.5"``, ``"0.8, 1, 1.2"``, a list of numbers, or Scales. Raises ValueError otherwise."""
        if isinstance(value, Scales):
            return value
        ends = re.fullmatch(r"\s*([\d.]+)\s*-\s*([\d.]+)\s*", value) if isinstance(value, str) else None
        try:
            scales = cls(tuple(map(_number, _parts(value) if ends is None else ends.groups())), ends is not None)
        except (TypeError, ValueError) as error:
            raise ValueError(_written(value)) from error
        if scales.between and scales.factors[0] >= scales.factors[1]:
            raise ValueError(f"the range {scales} does not ascend")
        return scales

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def _parts(value: object) -> Sequence[object]:
    if isinstance(value, str):
        return value.split(",")
    if isinstance(value, (list, tuple)) and value:
        return value
    raise TypeError(value)


def _number(part: object) -> float:
    factor = float(part) if isinstance(part, (str, int, float)) and not isinstance(part, bool) else 0.0
    if not LEAST <= factor <= MOST:
        raise ValueError(part)
    return factor


def _written(value: object) -> str:
    return (
        f"scale factors are written 0.5-1.5 (a range) or [0.8, 1, 1.2] (one of these), from {LEAST:g} to {MOST:g}, "
        f"not {value!r}"
    )
