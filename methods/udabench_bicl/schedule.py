"""A learning rate that begins again, lower, with every round (the released code)."""

from __future__ import annotations

from dataclasses import dataclass

from udabench.schedules import Schedule


@dataclass(frozen=True)
class RoundSchedule:
    """``decay ** r`` times the inner schedule, whose clock begins anew with each round r."""

    length: int
    decay: float
    inner: Schedule

    def factor(self, iteration: int, iterations: int) -> float:
        """The factor at 0-based ``iteration``; the inner schedule takes a round for its stage."""
        number, place = divmod(iteration, self.length)
        return self.decay**number * self.inner.factor(place, self.length)
