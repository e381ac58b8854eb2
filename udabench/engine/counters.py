"""Where a run stands, and what it has cost so far, over all of its sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from udabench.errors import CheckpointError


@dataclass
class Counters:
    """Goes into each checkpoint.

    Attributes:
        stage, stage_name: the stage in which the run is.
        iteration: steps done in it.
        passed: whether the pass of a stage without iterations is done.
        passes: stage, run's iteration and values of each pass that logged something.
        total: steps done in the run.
        taken: those of them that another run has made, whose stages this one took over.
        images_seen: of both domains.
        wall_seconds: all of the training.
        loop_seconds: spent in steps, waiting for data included.
        wait_seconds: spent waiting for data.
        peak_memory: bytes.
        evaluations: iteration and values of each evaluation.
    """

    stage: int = 0
    stage_name: str = ""
    iteration: int = 0
    total: int = 0
    taken: int = 0
    images_seen: int = 0
    wall_seconds: float = 0.0
    loop_seconds: float = 0.0
    wait_seconds: float = 0.0
    peak_memory: int = 0
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    passed: bool = False
    passes: list[tuple[str, int, dict[str, float]]] = field(default_factory=list)

    def as_state(self) -> dict[str, Any]:
        """JSON."""
        return asdict(self)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Counters:
        """Raises CheckpointError when it was written by another version."""
        try:
            counters = cls(**state)
        except TypeError as error:
            raise CheckpointError(
                f"The checkpoint's counters are not as expected ({error}). Start the run anew."
            ) from error
        counters.evaluations = [(int(iteration), dict(values)) for iteration, values in counters.evaluations]
        counters.passes = [(str(stage), int(iteration), dict(values)) for stage, iteration, values in counters.passes]
        return counters


class Laps:
    """How fast the steps were since the last look."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._last = (counters.total, counters.loop_seconds, counters.wait_seconds)

    def lap(self) -> tuple[float, float]:
        """Mean seconds of a step, and the share of them that was spent waiting for data."""
        now = (self._counters.total, self._counters.loop_seconds, self._counters.wait_seconds)
        steps, loop, wait = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return loop / steps, wait / max(loop, 1e-9)
