"""Schedules of the learning rate: pure functions of a stage's iteration and length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """A factor on each group's learning rate. A pure function: a resumed run asks it anew."""

    def factor(self, iteration: int, iterations: int) -> float:
        """The factor at 0-based ``iteration`` of a stage of ``iterations``."""


@dataclass(frozen=True)
class PolySchedule:
    """Linear warm-up times polynomial decay, as a factor on each group's learning rate.

    ``(1 - i / horizon) ** power``, times ``1 - (1 - i / warmup) * (1 - ratio)`` while ``i < warmup``.
    """

    warmup: int = 0
    warmup_ratio: float = 1e-6
    power: float = 1.0
    horizon: int | None = None
    """Iterations after which the factor is 0; None: the stage's length."""

    def factor(self, iteration: int, iterations: int) -> float:
        """The factor at 0-based ``iteration`` of a stage of ``iterations``."""
        decay: float = max(0.0, 1 - iteration / (self.horizon or iterations)) ** self.power
        return decay * _warming(iteration, self.warmup, self.warmup_ratio)


def _warming(iteration: int, warmup: int, ratio: float) -> float:
    return 1 - (1 - iteration / warmup) * (1 - ratio) if iteration < warmup else 1.0


@dataclass(frozen=True)
class StepSchedule:
    """``gamma ** (i // every)``: the rate is multiplied by ``gamma`` after each ``every`` iterations. Warm-up as in
    :class:`PolySchedule`."""

    every: int
    gamma: float = 0.1
    warmup: int = 0
    warmup_ratio: float = 1e-6

    def factor(self, iteration: int, iterations: int) -> float:
        """The factor at 0-based ``iteration``; the stage's length does not matter."""
        return self.gamma ** (iteration // self.every) * _warming(iteration, self.warmup, self.warmup_ratio)


@dataclass(frozen=True)
class LinearSchedule:
    """Constant for the first share of the stage, then linear to 0 at its end (CycleGAN, pix2pixHD: half and half)."""

    constant: float = 0.5

    def factor(self, iteration: int, iterations: int) -> float:
        """The factor at 0-based ``iteration`` of a stage of ``iterations``."""
        begin = self.constant * iterations
        return 1.0 if iteration <= begin else max(0.0, (iterations - iteration) / (iterations - begin))
