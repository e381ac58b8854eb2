"""Numbers as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from udabench.leaderboard.statistics import Spread

NONE = "–"


def percent(spread: Spread, digits: int = 2) -> str:
    """``45.32 ± 0.41``, of shares; no spread for one seed."""
    if math.isnan(spread.mean):
        return NONE
    text = f"{100 * spread.mean:.{digits}f}"
    return text if math.isnan(spread.std) else f"{text} ± {100 * spread.std:.{digits}f}"


def difference(spread: Spread) -> str:
    """``+8.12 [+5.90, +10.34]``: mean and its 95 % interval, in points; no interval below two pairs."""
    if math.isnan(spread.mean):
        return NONE
    text, half = f"{100 * spread.mean:+.2f}", spread.half_width
    if math.isnan(half):
        return text
    return f"{text} [{100 * (spread.mean - half):+.2f}, {100 * (spread.mean + half):+.2f}]"


def duration(seconds: float) -> str:
    """``35 s``, ``12.5 min``, ``16.2 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def average(values: Sequence[float | None]) -> float | None:
    """Mean of those that were measured."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def measured(value: float | None, scale: float, digits: int, unit: str) -> str:
    """A scaled value with its unit, or a dash."""
    return NONE if value is None else f"{value * scale:.{digits}f} {unit}"
