"""Who runs the runs: what the sweep asks of it, and processes on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

from udabench.errors import UsageError
from udabench.sweep.job import Job


class Handle(Protocol):
    """A run that was handed over."""

    def ended(self) -> bool:
        """Whether nobody works on it any more, whatever became of it."""

    def stop(self) -> None:
        """Ask it to save and end."""


class Executor(Protocol):
    """Takes runs over.

    Attributes:
        detached: whether its runs go on when the sweep ends.
    """

    detached: bool

    def room(self) -> int:
        """How many more runs it takes now."""

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        """At most :meth:`room`."""

    def running(self, jobs: Sequence[Job]) -> Mapping[Job, Handle]:
        """Those that an earlier sweep has handed over and that still wait or run."""


class Processes:
    """A process a run, one in each slot.

    Args:
        slots: the environment of each slot: its threads, its GPU.
    """

    detached = False

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self._free = list(slots)

    def room(self) -> int:
        return len(self._free)

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        return [_Process(job, self._free.pop(0), self._free) for job in jobs]

    def running(self, jobs: Sequence[Job]) -> Mapping[Job, Handle]:
        """None: they ended with their sweep."""
        return {}


class _Process:
    def __init__(self, job: Job, slot: Mapping[str, str], free: list[Mapping[str, str]]) -> None:
        self._process: subprocess.Popen[bytes] = job.order.start(slot)
        self._slot = slot
        self._free = free
        self._returned = False

    def ended(self) -> bool:
        if self._process.poll() is None:
            return False
        if not self._returned:
            self._free.append(self._slot)
            self._returned = True
        return True

    def stop(self) -> None:
        self._process.terminate()


def slots(jobs: int, gpus: Sequence[str], processors: int) -> list[dict[str, str]]:
    """The environments of so many slots: processors shared out, and a GPU each where there are some."""
    threads = str(max(1, processors // jobs))
    shared = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    return [{**shared, **({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {})} for index in range(jobs)]


def visible_gpus(text: str) -> list[str]:
    """``0,1`` as names for CUDA_VISIBLE_DEVICES, counted as torch counts them. One that is named twice takes two runs.

    Raises:
        UsageError: no list of numbers, or GPUs that are not there.
    """
    import torch

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--gpus takes numbers such as 0,1, not '{text}'.") from None
    count = torch.cuda.device_count()
    missing = [str(number) for number in numbers if not 0 <= number < count]
    if missing:
        there = f"0 to {count - 1}" if count else "none"
        raise UsageError(
            f"--gpus {', '.join(missing)}: no such GPU; torch finds {there}. Leave --gpus out for the CPU."
        )
    # Where this process sees a choice of the machine's GPUs, its numbers count within that choice.
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(number) for number in range(count)]
    return [names[number].strip() for number in numbers]
