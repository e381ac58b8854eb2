"""How long a sweep will take: from its own finished runs, else from the operations of a step."""

from __future__ import annotations

import heapq
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from udabench.errors import UserError
from udabench.plugins import load_registry
from udabench.results import read_record
from udabench.run.plan import Request, make_plan
from udabench.sweep.job import Job, State

Durations = Mapping[str, float]
"""Configuration hash and task -> seconds of a whole run."""


def key_of(job: Job) -> str:
    """Runs that differ in the seed alone take as long as each other."""
    return f"{job.plan.task.name}/{job.plan.row_name}"


def durations(jobs: Sequence[Job], states: Mapping[Job, State], share: float, plugins: tuple[Path, ...]) -> Durations:
    """Seconds of a run of each configuration that still has something to do; those that nobody can tell are left out.

    Args:
        share: of the device that each run will have.
    """
    known = _measured(jobs, states)
    first = {key_of(job): job.request for job in reversed(jobs) if states[job] != State.DONE}
    asked = {key: request for key, request in first.items() if key not in known}
    estimated = _estimated(list(asked.values()), plugins) if asked else []
    known |= {key: seconds / share for key, seconds in zip(asked, estimated, strict=True) if seconds is not None}
    return known


def _measured(jobs: Sequence[Job], states: Mapping[Job, State]) -> dict[str, float]:
    """The mean of each configuration's finished runs."""
    found: dict[str, list[float]] = {}
    for job in jobs:
        if states[job] == State.DONE:
            found.setdefault(key_of(job), []).append(read_record(job.order.folder).cost.wall_seconds)
    return {key: sum(seconds) / len(seconds) for key, seconds in found.items()}


def _estimated(requests: list[Request], plugins: tuple[Path, ...]) -> Sequence[float | None]:
    """In a process of its own: an estimate would hold a part of the GPU as long as its process lives."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(estimates, requests, plugins).result()
    except BrokenProcessPool:
        return [None] * len(requests)


def estimates(requests: Sequence[Request], plugins: tuple[Path, ...]) -> list[float | None]:
    """Seconds of each run alone on this machine; None where a step cannot be counted."""
    return [_estimate(request, plugins) for request in requests]


def _estimate(request: Request, plugins: tuple[Path, ...]) -> float | None:
    from udabench.run.estimate import estimate

    try:
        plan = make_plan(load_registry(plugins), request, plugins)
        step = estimate(plan).step_seconds
    except (UserError, RuntimeError):
        # What stands in its way will be said by the run itself.
        return None
    return None if step is None else step * plan.config.iterations


def left(job: Job, seconds: float) -> float:
    """Of a run of so many seconds, from its last checkpoint on."""
    done = int(job.folder.read_run().get("iteration", 0)) / job.plan.config.iterations
    return (1 - done) * seconds


def makespan(seconds: Sequence[float], slots: int) -> float:
    """When the last of the runs ends that start one after the other, as soon as one of the slots is free."""
    ends = [0.0] * slots
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)
