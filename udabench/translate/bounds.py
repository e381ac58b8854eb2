"""Bounds of engines' options."""

from __future__ import annotations

from udabench.errors import UsageError


def within(name: str, value: float, low: float, high: float) -> float:
    """The value. Raises UsageError where it is out of bounds."""
    if not low <= value <= high:
        raise UsageError(f"{name} = {value}: it must lie in {low} to {high}.")
    return value


def all_within(engine: str, low: float, high: float, **options: float) -> None:
    """Raises UsageError for the first option that is out of bounds."""
    for name, value in options.items():
        within(f"{engine}'s {name}", value, low, high)
