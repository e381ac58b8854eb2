"""The runs of a sweep, checked before anything starts, and where each of them stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from udabench.config import RunConfig
from udabench.data.locate import open_dataset
from udabench.engine.folder import RunFolder
from udabench.errors import UsageError, UserError, unknown
from udabench.registry import Registry
from udabench.run.evaluated import evaluated
from udabench.run.plan import Plan, Request, make_plan
from udabench.sweep.file import Point
from udabench.sweep.order import Order, fresh_arguments


class State(StrEnum):
    """Of a run's folder."""

    NEW = "new"
    BROKEN = "broken"
    """Begun and not finished; it is resumed."""
    BUSY = "busy"
    """Another process works on it."""
    DONE = "done"


@dataclass(frozen=True, eq=False)
class Job:
    """One run. ``row``: what was asked for, in a few words."""

    row: str
    request: Request
    plan: Plan
    order: Order

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.order.folder)

    @property
    def seed(self) -> int:
        return self.plan.config.seed

    @property
    def title(self) -> str:
        return f"{self.plan.task.name} {self.row} seed {self.seed}"

    def state(self) -> State:
        """As the folder stands now."""
        folder = self.folder
        if folder.record.is_file():
            return State.DONE
        if folder.owner() is not None:
            return State.BUSY
        return State.BROKEN if folder.run_json.exists() else State.NEW


def choose(points: Sequence[Point], **wanted: Sequence[Any] | None) -> list[Point]:
    """The points of these ``method``, ``source``, ``target`` and ``seed``; None: of all. Raises UsageError for a name
    that none of them has."""
    chosen = list(points)
    for kind, names in wanted.items():
        if names is None:
            continue
        known = {value for point in points for value in _values(point, kind)}
        for name in names:
            if name not in known:
                raise unknown(f"{kind} of the sweep", str(name), map(str, known))
        if kind == "seed":
            chosen = [replace(p, seeds=tuple(seed for seed in p.seeds if seed in names)) for p in chosen]
        else:
            chosen = [point for point in chosen if getattr(point.request, kind) in names]
    return [point for point in chosen if point.seeds]


def _values(point: Point, kind: str) -> Sequence[Any]:
    return point.seeds if kind == "seed" else [getattr(point.request, kind)]


def make_jobs(registry: Registry, points: Sequence[Point], runs: Path, plugins: tuple[Path, ...]) -> list[Job]:
    """Every run of the points. Raises UsageError with the problems of all rows at once."""
    problems: list[tuple[str, str]] = []
    jobs: list[Job] = []
    for point in points:
        try:
            plan = make_plan(registry, point.request, plugins)
        except UserError as error:
            problems.append((str(error), point.row))
            continue
        jobs += [_job(point, plan.with_seed(seed), runs, plugins) for seed in point.seeds]
    if said := [*together(problems), *_clashes(jobs)]:
        raise UsageError("\n".join(said))
    if not jobs:
        raise UsageError("The sweep has no runs.")
    return jobs


def together(problems: Iterable[tuple[str, str]]) -> list[str]:
    """(problem, row): each problem once, behind its rows."""
    rows: dict[str, list[str]] = {}
    for problem, row in problems:
        rows.setdefault(problem, []).append(row)
    return [f"{', '.join(dict.fromkeys(named))}: {problem}" for problem, named in rows.items()]


def _job(point: Point, plan: Plan, runs: Path, plugins: tuple[Path, ...]) -> Job:
    fresh = fresh_arguments(point.request, plan.config.seed, runs, plugins)
    return Job(point.row, point.request, plan, Order(runs / plan.folder_name, fresh))


def _clashes(jobs: Sequence[Job]) -> Iterator[str]:
    """Runs of one folder: the same configuration, task and seed."""
    places: dict[Path, list[Job]] = {}
    for job in jobs:
        places.setdefault(job.order.folder, []).append(job)
    for folder, same in places.items():
        if len(same) > 1:
            rows = " and ".join(f"'{job.row}'" for job in same)
            yield f"{rows} are the same run: {folder}. What they differ in is no part of the configuration's hash."


def missing(jobs: Sequence[Job]) -> Iterator[str]:
    """Data sets that cannot be opened, with the rows that name them. Not every method needs them all."""
    rows: dict[tuple[str, str], list[str]] = {}
    advice: dict[str, str] = {}
    for job in {(job.row, job.plan.task.name): job for job in jobs}.values():
        for name, split, options in _wanted(job.plan.config):
            try:
                open_dataset(job.plan.registry, name, split, job.plan.config.data.roots, options)
            except UserError as error:
                rows.setdefault((name, split), []).append(job.row)
                advice.setdefault(name, str(error))
    for (name, split), named in rows.items():
        said = f": {advice.pop(name)}" if name in advice else ""
        yield f"{name} {split} cannot be opened, for {', '.join(dict.fromkeys(named))}{said}"


def _wanted(config: RunConfig) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    yield config.source, config.data.source_split, config.data.source_options
    yield config.target, config.data.target_split, config.data.target_options
    yield evaluated(config)
