"""A run's steps, shared out among the trainings of a method."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise


def even_lengths(iterations: int, parts: int) -> list[int]:
    """As evenly as whole steps allow, the first ones one longer; each has one at least."""
    each, longer = divmod(iterations, parts)
    return [max(1, each + (part < longer)) for part in range(parts)]


def warmup_lengths(iterations: int, share: float, parts: int) -> list[int]:
    """First that of a warm-up of so large a share, which leaves a step to each of the others; these share evenly."""
    warmup = min(round(share * iterations), max(0, iterations - parts))
    return [warmup, *even_lengths(iterations - warmup, parts)]


def lengths_by(iterations: int, shares: Sequence[float]) -> list[int]:
    """By these shares, whatever they sum up to, in whole steps that sum up to the run's; each has one at least."""
    ends = [round(iterations * end / sum(shares)) for end in accumulate(shares, initial=0.0)]
    return [max(1, stop - start) for start, stop in pairwise(ends)]
