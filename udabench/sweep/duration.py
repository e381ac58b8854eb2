"""How long a sweep will take: from its own finished runs, else from the operations of a step."""

from __future__ import annotations

import heapq
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from udabench.errors import UsageError, UserError
from udabench.plugins import load_registry
from udabench.results import read_record
from udabench.run.plan import Request, make_plan
from udabench.sweep.job import Job, State, together

Durations = Mapping[str, float]
"""Task and configuration -> seconds of a whole run."""


@dataclass(frozen=True)
class Finding:
    """What building a run in small has shown: why it cannot be, or how long it takes alone on this machine."""

    problem: str | None = None
    seconds: float | None = None


class Question(NamedTuple):
    """A run to be built in small. ``elder``: the request and the folder of the run that it begins from."""

    request: Request
    elder: tuple[Request, Path] | None = None


def key_of(job: Job) -> str:
    """Runs that differ in the seed alone take as long as each other."""
    return f"{job.plan.task.name}/{job.plan.row_name}"


def durations(
    jobs: Sequence[Job],
    states: Mapping[Job, State],
    share: float,
    plugins: tuple[Path, ...],
    device: str | None = None,
) -> Durations:
    """Seconds of a run of each configuration that still has something to do; those that nobody can tell are left out.

    Args:
        share: of the device that each run will have.
        device: to estimate on; None: the run's.

    Raises:
        UsageError: names that are known only when a method is built (its network, its translator), and what does not
            fit together; of all rows at once.
    """
    known = _measured(jobs, states)
    first = {key_of(job): job for job in reversed(jobs) if states[job] != State.DONE}
    asked = [job for key, job in reversed(first.items()) if key not in known]
    flags = {} if device is None else {"engine.device": device}
    found = _built([_question(job, flags) for job in asked], plugins) if asked else []
    problems = [(finding.problem, job.row) for job, finding in zip(asked, found, strict=True) if finding.problem]
    if problems:
        raise UsageError("\n".join(together(problems)))
    timed = [(job, finding.seconds) for job, finding in zip(asked, found, strict=True)]
    return known | {key_of(job): seconds / share for job, seconds in timed if seconds is not None}


def _measured(jobs: Sequence[Job], states: Mapping[Job, State]) -> dict[str, float]:
    """The mean of each configuration's finished runs."""
    found: dict[str, list[float]] = {}
    for job in jobs:
        if states[job] == State.DONE:
            found.setdefault(key_of(job), []).append(read_record(job.order.folder).cost.wall_seconds)
    return {key: sum(seconds) / len(seconds) for key, seconds in found.items()}


def _question(job: Job, flags: Mapping[str, Any]) -> Question:
    elder = None if job.ancestor is None else (job.ancestor.request, job.ancestor.order.folder)
    return Question(replace(job.request, flags={**job.request.flags, **flags}), elder)


def _built(questions: list[Question], plugins: tuple[Path, ...]) -> Sequence[Finding]:
    """In a process of its own: what it holds of a GPU goes with it."""
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(build_all, questions, plugins).result()
    except BrokenProcessPool:
        return [Finding()] * len(questions)


def build_all(questions: Sequence[Question], plugins: tuple[Path, ...]) -> list[Finding]:
    """Each run in small."""
    return [_build(question, plugins) for question in questions]


def _build(question: Question, plugins: tuple[Path, ...]) -> Finding:
    from udabench.run.estimate import estimate
    from udabench.run.heritage import steps_taken_over

    registry = load_registry(plugins)
    plan = make_plan(registry, question.request, plugins)
    try:
        taken = 0
        if question.elder is not None:
            request, folder = question.elder
            taken = steps_taken_over(plan, make_plan(registry, request, plugins), folder)
        step = estimate(plan).step_seconds
    except UserError as error:
        return Finding(problem=str(error))
    except Exception:
        # A bug of a method is its own runs' failure; and a step that fails in small may go well.
        return Finding()
    return Finding(seconds=None if step is None else step * (plan.config.iterations - taken))


def left(job: Job, seconds: float) -> float:
    """Of a run of so many seconds, from its last checkpoint on."""
    done = int(job.folder.read_run().get("iteration", 0)) / job.plan.config.iterations
    return (1 - done) * seconds


def makespan(seconds: Sequence[float], slots: int, after: Mapping[int, int] = {}) -> float:
    """When the last of the runs ends that start one after the other, as soon as one of the slots is free.

    Args:
        after: a run's number -> that of the run whose end it waits for.
    """
    free, ends = [0.0] * slots, dict[int, float]()

    def start(number: int) -> float:
        return max(free[0], ends[after[number]]) if number in after else free[0]

    todo = list(range(len(seconds)))
    while todo:
        chosen = min((number for number in todo if number not in after or after[number] in ends), key=start)
        todo.remove(chosen)
        ends[chosen] = start(chosen) + seconds[chosen]
        heapq.heapreplace(free, ends[chosen])
    return max(free)
