"""What a person sees of a sweep: the plan, the runs while they run, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from udabench.errors import UserError
from udabench.leaderboard.format import duration
from udabench.sweep.conduct import Phase, Watch
from udabench.sweep.duration import Durations, key_of, left, makespan
from udabench.sweep.job import Job, State
from udabench.sweep.progress import Progress

UNKNOWN = "?"
REFRESH_SECONDS = 1.0
LINE_SECONDS = 30.0
"""Between two lines of progress of a run where there is no terminal."""
AROUND = 8
"""Lines that a terminal needs beside the table."""
_STYLES = {Phase.RUNNING: "bold", Phase.ELSEWHERE: "cyan", Phase.DONE: "green", Phase.FAILED: "red"}


def plan_table(jobs: Sequence[Job], states: Mapping[Job, State], seconds: Durations) -> Table:
    """A line for each configuration: its seeds, where they stand, the time of a run, and what it begins from."""
    begun = any(job.ancestor for job in jobs)
    table = _table("task", "row", "configuration", "seeds", "runs", "time a run", *(["begins from"] if begun else []))
    rows: dict[str, list[Job]] = {}
    for job in jobs:
        rows.setdefault(key_of(job), []).append(job)
    for key, members in rows.items():
        first, found = members[0], [states[job] for job in members]
        table.add_row(
            first.plan.task.name,
            first.row,
            first.plan.row_name,
            ",".join(str(job.seed) for job in members),
            ", ".join(f"{found.count(state)} {state}" for state in State if state in found),
            _time(seconds.get(key), set(found)),
            *([first.ancestor.row if first.ancestor else ""] if begun else []),
        )
    return table


def carried_rows(jobs: Sequence[Job]) -> str:
    """Which rows come along without having been chosen; empty where none does."""
    names = dict.fromkeys(job.row for job in jobs if job.carried)
    return f"not chosen, but begun from: {', '.join(names)}" if names else ""


def _time(seconds: float | None, states: set[State]) -> str:
    if states == {State.DONE}:
        return ""
    return UNKNOWN if seconds is None else f"about {duration(seconds)}"


def plan_total(jobs: Sequence[Job], states: Mapping[Job, State], seconds: Durations, slots: int) -> str:
    """How many runs are left, and for how long."""
    todo = [job for job in jobs if states[job] != State.DONE]
    timed = {job: number for number, job in enumerate(job for job in todo if key_of(job) in seconds)}
    known = [left(job, seconds[key_of(job)]) for job in timed]
    after = {number: timed[job.ancestor] for job, number in timed.items() if job.ancestor in timed}
    beside = f", {slots} side by side" if slots > 1 else ""
    said = f"{len(jobs)} runs, {len(todo)} to do{beside}"
    if not known:
        return said
    missing = f" and {len(todo) - len(known)} of unknown length" if len(known) < len(todo) else ""
    return f"{said}: about {duration(makespan(known, slots, after))}{missing}, evaluations aside, within a factor of 3"


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


class Board:
    """What is known of every run while the sweep runs; read again from the folders once a second."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._progress = {job: Progress(job) for job in jobs}
        self._metric = dict.fromkeys(jobs, "")
        self._phases: dict[Job, Phase] = {}

    def update(self, phases: Mapping[Job, Phase]) -> dict[Job, Phase]:
        """Returns the runs whose phase has changed, with the new one."""
        changed = {job: phase for job, phase in phases.items() if self._phases.get(job) != phase}
        for job, phase in phases.items():
            if job in changed or phase in (Phase.RUNNING, Phase.ELSEWHERE):
                self._read(job)
        self._phases = dict(phases)
        return changed

    def _read(self, job: Job) -> None:
        try:
            self._progress[job].update()
            self._metric[job] = self._progress[job].metric()
        except (UserError, OSError) as error:
            # A damaged folder is its own run's failure, not the sweep's.
            self._metric[job] = str(error)

    def cells(self, job: Job) -> tuple[str, str, str, str]:
        """Phase, iteration, time left, metric."""
        progress, phase = self._progress[job], self._phases[job]
        seconds = progress.seconds_left if phase in (Phase.RUNNING, Phase.ELSEWHERE) else None
        iteration = progress.total if phase == Phase.DONE else progress.iteration
        ahead = "" if seconds is None else duration(seconds)
        return phase, f"{iteration}/{progress.total}", ahead, self._metric[job]

    def table(self, height: int) -> RenderableType:
        """All runs; where they are too many for the height, those at work and those that failed."""
        jobs = list(self._phases)
        if len(jobs) > height - AROUND:
            jobs = [job for job in jobs if self._phases[job] not in (Phase.WAITING, Phase.DONE)]
        tasks = {job.plan.task.name for job in self._phases}
        table = _table(*(["task"] if len(tasks) > 1 else []), "row", "seed", "", "iteration", "time left", "metric")
        for job in jobs:
            task = [job.plan.task.name] if len(tasks) > 1 else []
            style = _STYLES.get(self._phases[job], "")
            table.add_row(*task, job.row, str(job.seed), *map(Text, self.cells(job)), style=style)
        # A narrow terminal has no room to say the one task in every line.
        heading = [Text(f"  {name}") for name in tasks] if len(tasks) == 1 else []
        return Group(*heading, table, Text(self.counts()))

    def counts(self) -> str:
        """``3 done, 2 running, 4 waiting``."""
        phases = list(self._phases.values())
        return ", ".join(f"{phases.count(phase)} {phase}" for phase in Phase if phase in phases)


@contextmanager
def watching(jobs: Sequence[Job], console: Console) -> Iterator[Watch]:
    """A live table on a terminal; elsewhere a line for each thing that happens."""
    board = Board(jobs)
    if not console.is_terminal:
        yield _Lines(board, console)
        return
    with Live(console=console, auto_refresh=False) as live:
        table = _Table(board, live)
        yield table
        table.draw()


class _Table:
    def __init__(self, board: Board, live: Live) -> None:
        self._board = board
        self._live = live
        self._drawn = 0.0
        self._phases: Mapping[Job, Phase] = {}

    def __call__(self, phases: Mapping[Job, Phase]) -> None:
        self._phases = phases
        if time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Read the folders and show the table, now."""
        self._drawn = time.monotonic()
        self._board.update(self._phases)
        self._live.update(self._board.table(self._live.console.height), refresh=True)


class _Lines:
    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._console = console
        self._said: dict[Job, float] = {}

    def __call__(self, phases: Mapping[Job, Phase]) -> None:
        changed, now = self._board.update(phases), time.monotonic()
        for job, phase in phases.items():
            due = phase == Phase.RUNNING and now - self._said.get(job, now) >= LINE_SECONDS
            if due or (job in changed and phase != Phase.WAITING):
                self._said[job] = now
                parts = [job.title, *self._board.cells(job)]
                if phase == Phase.FAILED:
                    parts.append(f"log {job.order.log}")
                self._console.print("  ".join(part for part in parts if part), markup=False)


def failures(phases: Mapping[Job, Phase]) -> str:
    """Each failed run with its last words and its log."""
    failed = [job for job, phase in phases.items() if phase == Phase.FAILED]
    return "\n".join(f"  {job.title}: {job.order.last_words()}\n    log {job.order.log}" for job in failed)
