"""Means over seeds, their spread, and the interval of a paired difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of n defined values; NaN below one and below two."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """NaN values are left out."""
        known = [value for value in values if not math.isnan(value)]
        n = len(known)
        mean = math.fsum(known) / n if n else math.nan
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (n - 1)) if n > 1 else math.nan
        return cls(mean, std, n)

    @property
    def half_width(self) -> float:
        """Half the 95 % t-interval of the mean; NaN below two values."""
        return t_quantile(self.n - 1) * self.std / math.sqrt(self.n) if self.n > 1 else math.nan


def paired_difference(values: dict[int, float], base: dict[int, float]) -> Spread:
    """Differences between runs of equal seed; of the plain means (n = 1, no interval) where no seed is shared."""
    shared = sorted(values.keys() & base.keys())
    if shared:
        return Spread.of([values[seed] - base[seed] for seed in shared])
    return Spread.of([Spread.of(list(values.values())).mean - Spread.of(list(base.values())).mean])


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(|T| <= t) = ``level`` for Student's T with ``freedom`` degrees, to about 1e-12.

    Bisection on the closed form for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4), in the angle
    ``atan(t / sqrt(freedom))``.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle))."""
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= square * k / (k + 1)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
