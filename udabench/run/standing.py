"""Where each stage of a run stands, read from its folder alone: no method is built, no data set opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from udabench.engine.artefacts import TABLE
from udabench.engine.checkpoint import Checkpoints
from udabench.engine.declared import refreshes
from udabench.engine.files import size_of
from udabench.engine.folder import RunFolder
from udabench.engine.metrics import read_metrics
from udabench.errors import CheckpointError


class State(StrEnum):
    """Of a stage."""

    DONE = "done"
    TAKEN = "taken over"
    """From the run that this one began from."""
    RUNNING = "running"
    STOPPED = "stopped"
    WAITING = "waiting"


@dataclass(frozen=True)
class Stored:
    """An artefact in one version: the iteration of the stage at which it was prepared."""

    version: int
    name: str
    files: int
    size: int


@dataclass(frozen=True)
class Standing:
    """One stage.

    Attributes:
        iterations: its length.
        done: steps of it.
        passes: how often it prepares, in all.
        prepared: how often it has.
        artefacts: what lies on the disk.
        pruned: names of artefacts that were removed after the run.
    """

    name: str
    state: State
    iterations: int
    done: int
    passes: int
    prepared: int
    artefacts: tuple[Stored, ...]
    pruned: tuple[str, ...] = ()


def standings(folder: RunFolder) -> list[Standing]:
    """Of every stage, in order; nothing where the folder does not say what they are. Raises UserError."""
    run = folder.read_run()
    stages: list[dict[str, Any]] = run.get("stages") or []
    taken = set((run.get("ancestor") or {}).get("stages", ()))
    index, done, passed = _place(folder)
    finished = folder.record.is_file()
    found, before = [], 0
    for number, stage in enumerate(stages):
        length = int(stage["iterations"])
        steps = length if number < index or finished else max(0, done - before) if number == index else 0
        over = finished or number < index or (number == index and (passed if length == 0 else steps >= length))
        state = _state(run, stage["name"] in taken, over, begun=number == index)
        artefacts = tuple(_stored(folder.artefacts / stage["name"]))
        pruned = tuple((run.get("pruned") or {}).get(stage["name"], ()))
        prepared = refreshes(stage) if over else len({each.version for each in artefacts})
        found.append(
            Standing(stage["name"], state, length, min(steps, length), refreshes(stage), prepared, artefacts, pruned)
        )
        before += length
    return _moved_on(found, run)


def _place(folder: RunFolder) -> tuple[int, int, bool]:
    """Index of the stage, steps of the run as far as they were logged or stored, whether a pass alone is over."""
    try:
        last = Checkpoints(folder.checkpoints).latest()
    except CheckpointError:
        last = None
    counters: Mapping[str, Any] = {} if last is None else last.state["counters"]
    entries = read_metrics(folder.metrics)
    names = [stage["name"] for stage in folder.read_run().get("stages") or []]
    index, total = int(counters.get("stage", 0)), int(counters.get("total", 0))
    if entries and entries[-1]["iteration"] > total and entries[-1]["stage"] in names:
        return max(index, names.index(entries[-1]["stage"])), int(entries[-1]["iteration"]), False
    return index, total, bool(counters.get("passed", False))


def _state(run: Mapping[str, Any], taken: bool, over: bool, begun: bool) -> State:
    if taken:
        return State.TAKEN
    if over:
        return State.DONE
    if not begun:
        return State.WAITING
    return State.RUNNING if run.get("status") == "running" else State.STOPPED


def _moved_on(found: list[Standing], run: Mapping[str, Any]) -> list[Standing]:
    """Behind a stage that is over the next one has begun, though no checkpoint tells it yet."""
    over = (State.DONE, State.TAKEN)
    for number, stage in enumerate(found):
        if stage.state == State.WAITING and (number == 0 or found[number - 1].state in over):
            found[number] = replace(stage, state=_state(run, False, False, begun=True))
            break
    return found


def _stored(folder: Path) -> Iterator[Stored]:
    versions = [path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    for version in sorted(versions, key=lambda path: int(path.name)):
        for path in sorted(version.iterdir()):
            if not path.name.startswith("."):
                files, size = size_of(path) if path.is_dir() else (1, path.stat().st_size)
                yield Stored(int(version.name), path.name.removesuffix(TABLE), files, size)
