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
from udabench.run.ancestor import row_known_as
from udabench.run.evaluated import evaluated
from udabench.run.plan import Plan, Request, make_plan
from udabench.sweep.file import Point
from udabench.sweep.kin import carry_ancestors
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
    """One run.

    Attributes:
        row: what was asked for, in a few words.
        ancestor: the run that must be done before this one begins.
        carried: it was not chosen; others that were begin from it.
    """

    row: str
    request: Request
    plan: Plan
    order: Order
    ancestor: Job | None = None
    carried: bool = False

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
    """The points of these ``method``, ``source``, ``target`` and ``seed`` (None: of all), and what they begin from.

    Raises UsageError for a name that none of them has.
    """
    chosen = list(points)
    for kind, names in wanted.items():
        if names is None:
            continue
        known = {value for point in points for value in _values(point, kind)}
        for name in names:
            if name not in known:
                raise unknown(f"{kind} of the sweep", str(name), map(str, known))
        chosen = [_only(point, kind, names) for point in chosen]
    return [point for point in carry_ancestors(chosen, points) if point.seeds]


def _only(point: Point, kind: str, names: Sequence[Any]) -> Point:
    """A point without the seeds that were not asked for."""
    if kind == "seed":
        return replace(point, seeds=tuple(seed for seed in point.seeds if seed in names))
    return point if getattr(point.request, kind) in names else replace(point, seeds=())


def _values(point: Point, kind: str) -> Sequence[Any]:
    return point.seeds if kind == "seed" else [getattr(point.request, kind)]


def make_jobs(registry: Registry, points: Sequence[Point], runs: Path, plugins: tuple[Path, ...]) -> list[Job]:
    """Every run of the points. Raises UsageError with the problems of all rows at once."""
    maker = _Maker(registry, points, runs, plugins)
    jobs = [job for point in points for job in maker.jobs(point)]
    if said := [*together(maker.problems), *_clashes(jobs)]:
        raise UsageError("\n".join(said))
    if not jobs:
        raise UsageError("The sweep has no runs.")
    return jobs


class _Maker:
    """Makes the runs of points, those that others begin from before these."""

    def __init__(self, registry: Registry, points: Sequence[Point], runs: Path, plugins: tuple[Path, ...]) -> None:
        self.problems: list[tuple[str, str]] = []
        self._registry = registry
        self._points = {point.place: point for point in points}
        self._runs = runs
        self._plugins = plugins
        self._made: dict[int, list[Job]] = {}

    def jobs(self, point: Point) -> list[Job]:
        """Empty where there is a problem, which is noted."""
        if id(point) not in self._made:
            try:
                self._made[id(point)] = self._own(point) if point.ancestor is None else self._descending(point)
            except UserError as error:
                self.problems.append((str(error), point.row))
                self._made[id(point)] = []
        return self._made[id(point)]

    def _own(self, point: Point) -> list[Job]:
        plan = make_plan(self._registry, point.request, self._plugins)
        return [self._job(point, point.request, plan.with_seed(seed)) for seed in point.seeds]

    def _descending(self, point: Point) -> list[Job]:
        if "init_from" in point.request.overrides:
            raise UsageError("init_from is said by the row and under 'set' or 'grid'. Leave one out.")
        elders = {job.seed: job for job in self.jobs(self._points[point.ancestor])}
        if not elders:
            # What is wrong with the row itself is said all the same.
            self._own(point)
            return []
        return [self._child(point, seed, elders[seed]) for seed in point.seeds]

    def _child(self, point: Point, seed: int, elder: Job) -> Job:
        """A request of its own: each seed begins from another folder."""
        flags = {**point.request.flags, "seed": seed, "init_from": elder.order.folder}
        request = replace(point.request, flags=flags, ancestor=row_known_as(elder.plan.config.hash))
        return self._job(point, request, make_plan(self._registry, request, self._plugins), elder)

    def _job(self, point: Point, request: Request, plan: Plan, elder: Job | None = None) -> Job:
        fresh = fresh_arguments(request, plan.config.seed, self._runs, self._plugins)
        return Job(point.row, request, plan, Order(self._runs / plan.folder_name, fresh), elder, point.carried)


def together(problems: Iterable[tuple[str, str]]) -> list[str]:
    """(problem, row): each problem once, behind its rows."""
    rows: dict[str, list[str]] = {}
    for problem, row in problems:
        rows.setdefault(problem, []).append(row)
    return [f"{', '.join(dict.fromkeys(named))}: {problem}" for problem, named in rows.items()]


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
