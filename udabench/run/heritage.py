"""What a run takes over from its ancestor: stages of the same method's run, or the weights of another method's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Any

from udabench.config import extra_of
from udabench.engine.checkpoint import Checkpoint, load_model, open_checkpoint
from udabench.engine.declared import declarations
from udabench.engine.stages import enter
from udabench.errors import CheckpointError, UsageError, UserError
from udabench.run.ancestor import KEY, Ancestor, read_ancestor
from udabench.run.initial import headline_weights, read_initial
from udabench.run.plan import Plan, plan_from_values
from udabench.run.setup import Initial, bare_method
from udabench.run.trained import stored_plan

FREE = ("iterations", KEY)
"""Keys that act through what the stages declare, or that the taken over stages bring along."""


@dataclass(frozen=True)
class Heritage:
    """What there is to take over, found out before anything is written.

    Attributes:
        stages: names of the stages that count as done; none: the run is of another method.
        end: the checkpoint at the end of the last of them.
        next: why the first other stage is trained here.
        initial: the weights that every network begins with, where it is not the configured ones.
        target_labels: whether a network was trained on the target's labels before.
    """

    ancestor: Ancestor
    target_labels: bool
    initial: Initial | None = None
    stages: tuple[str, ...] = ()
    end: Checkpoint | None = None
    next: str = ""

    @property
    def iterations(self) -> int:
        """Steps of the stages that are taken over."""
        return 0 if self.end is None else int(self.end.state["counters"]["total"])

    def described(self) -> dict[str, Any]:
        """For ``run.json`` and the record."""
        config = self.ancestor.run["config"]
        record = self.ancestor.record
        return {
            "run": self.ancestor.folder.path.resolve().name,
            "method": record.method_title if record is not None else config["method"],
            "config_hash": self.ancestor.run["config_hash"],
            "seed": config["seed"],
            "outcome": record.outcome_digest if record is not None else None,
            "weights": self.ancestor.last.weights if self.end is None else self.end.weights,
            "stages": list(self.stages),
            "iterations": self.iterations,
            "target_labels": self.target_labels,
        }


def find_heritage(plan: Plan) -> Heritage | None:
    """What a plan's run takes over; None where it begins from no other.

    Raises:
        UsageError: the ancestor's network, classes or stages are others.
        CheckpointError: what is to be taken over is not there any more, or damaged.
    """
    if plan.config.init_from is None:
        return None
    ancestor = read_ancestor(plan.config.init_from)
    elder = stored_plan(ancestor.folder, plan.plugin_files)
    _check_network(plan, elder, ancestor.folder.path)
    before = (ancestor.run.get(KEY) or {}).get("target_labels", False)
    target_labels = before or (ancestor.record is not None and ancestor.record.flags.target_labels)
    if elder.config.methods != plan.config.methods:
        return Heritage(ancestor, target_labels, headline_weights(ancestor, elder))
    return _stages_of(plan, elder, ancestor, target_labels)


def _check_network(plan: Plan, elder: Plan, path: Path) -> None:
    ours, theirs = plan.config.network, elder.config.network
    if (ours.name, ours.options) != (theirs.name, theirs.options):
        raise UsageError(
            f"--init-from {path}: this run's network is {_named(theirs)}, not {_named(ours)}. Choose the same: "
            f"--network {theirs.name}, or begin from a run of {ours.name}."
        )
    if plan.task.classes.names != elder.task.classes.names:
        raise UsageError(
            f"--init-from {path}: this run's {len(elder.task.classes)} classes ({elder.task.classes.name}) are not the "
            f"{len(plan.task.classes)} of {plan.task.name} ({plan.task.classes.name}). Choose one list for both: "
            "--set data.classes=<list>."
        )


def _named(network: Any) -> str:
    options = ", ".join(f"{key}={value}" for key, value in network.options.items())
    return f"{network.name} ({options})" if options else str(network.name)


# The same method


def _stages_of(plan: Plan, elder: Plan, ancestor: Ancestor, target_labels: bool) -> Heritage:
    old = ancestor.stages
    taken, reason = _shared(plan, elder, old, ancestor.folder.path)
    end = _end(ancestor, _names(old), taken)
    _check_state(plan, end, taken)
    _check_artefacts(plan, ancestor, taken)
    return Heritage(ancestor, target_labels, read_initial(ancestor.folder), tuple(_names(old)[:taken]), end, reason)


def steps_taken_over(plan: Plan, elder: Plan, path: Path) -> int:
    """How many steps a plan's run will take over of one that may not have begun yet, in the folder ``path``.

    Raises UsageError where it could not begin from that run.
    """
    _check_network(plan, elder, path)
    if elder.config.methods != plan.config.methods:
        return 0
    old = _declared(elder)
    taken, _ = _shared(plan, elder, old, path)
    return sum(int(stage["iterations"]) for stage in old[:taken])


def _shared(plan: Plan, elder: Plan, old: Sequence[Mapping[str, Any]], path: Path) -> tuple[int, str]:
    """How many of the ancestor's stages ``old`` are also this run's, and why the next one is trained here.

    Raises UsageError where none of them is, or where none is left to be trained.
    """
    new = _declared(plan)
    differing = dict(_differing(plan, elder))
    begins = {key: _first_stage(plan, elder, key, old, new) for key in differing}
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    taken = min([same, *begins.values()])
    reason = _reason(old, new, taken, [key for key, first in begins.items() if first <= taken], differing)
    if taken == 0:
        raise UsageError(
            f"--init-from {path}: this run is of the same method, but no stage of it can be taken over: {reason}."
            + _longer(old[0], new[0], plan.config.iterations)
        )
    if taken == len(new):
        raise UsageError(
            f"--init-from {path}: every stage of this run ({', '.join(_names(new))}) is done there. Ask for more "
            f"stages, or evaluate it otherwise: udabench evaluate {path}"
        )
    return taken, reason


def _longer(there: Mapping[str, Any], here: Mapping[str, Any], iterations: int) -> str:
    """What to do where the run's steps are shared out to more trainings, so that each is shorter."""
    if there["name"] != here["name"] or there["iterations"] == here["iterations"] or not here["iterations"]:
        return ""
    enough = round(iterations * there["iterations"] / here["iterations"])
    return (
        " A run's iterations are shared out to its stages: "
        f"with about --iterations {enough} this one is as long as there."
    )


def _names(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(stage["name"]) for stage in stages]


def _declared(plan: Plan) -> list[dict[str, Any]]:
    return declarations(bare_method(plan).stages())


def _differing(plan: Plan, elder: Plan) -> Iterator[tuple[str, str]]:
    """Keys that make another training, with both values. How a run is evaluated is none of them."""
    theirs = {key: value for key, value, _ in elder.config.leaves()}
    for key, value, info in plan.config.leaves():
        hashed = extra_of(info, "hashed", True) and key not in FREE and not key.startswith("evaluate.")
        if hashed and theirs.get(key) != value:
            yield key, f"{theirs.get(key)} there, {value} here"


def _first_stage(plan: Plan, elder: Plan, key: str, old: Sequence[Any], new: Sequence[Any]) -> int:
    """The index of the first stage on which the value of a key may have an influence.

    A key says so itself (``setting(..., stages="adapt*")``). One that, changed alone, makes the list of stages longer
    or shorter is taken to act on the stages by which it does. Any other may act on all.
    """
    info = next(info for name, _, info in plan.config.leaves() if name == key)
    said = extra_of(info, "stages", None)
    if said is not None:
        return next((i for i, name in enumerate(_names(new)) if fnmatchcase(name, said)), len(new))
    if not key.startswith("settings.") or _names(old) == _names(new):
        return 0
    before, after = _names(old), _names_with(elder, plan, key)
    shorter = min(len(before), len(after))
    return shorter if before != after and before[:shorter] == after[:shorter] else 0


def _names_with(elder: Plan, plan: Plan, key: str) -> list[str]:
    """The ancestor's stages, had it been given this one value; none where the value alone is not allowed."""
    values, ours = elder.config.model_dump(mode="json"), plan.config.model_dump(mode="json")
    *sections, leaf = key.split(".")
    place = values
    for section in sections:
        place, ours = place[section], ours[section]
    place[leaf] = ours[leaf]
    try:
        return _names(_declared(plan_from_values(plan.registry, values, elder.resolved.origins, plan.plugin_files)))
    except UserError:
        return []


def _reason(
    old: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    taken: int,
    keys: Sequence[str],
    differing: Mapping[str, str],
) -> str:
    """Why the stage at ``taken`` is trained here."""
    if taken >= len(new):
        return ""
    name = new[taken]["name"]
    if taken >= len(old):
        return f"stage '{name}' is new"
    if keys:
        return f"stage '{name}' may depend on {'; '.join(f'{key} ({differing[key]})' for key in keys)}"
    there = old[taken]
    if there["name"] != name:
        return f"stage '{name}' is '{there['name']}' there"
    parts = [key for key in new[taken] if json.dumps(new[taken][key]) != json.dumps(there.get(key))]
    said = ", ".join(f"{key} ({there.get(key)} there, {new[taken][key]} here)" for key in parts)
    return f"stage '{name}' has another {said}"


def _end(ancestor: Ancestor, names: Sequence[str], taken: int) -> Checkpoint:
    """The state at the end of the last stage that is taken over."""
    if taken == len(names):
        return ancestor.last
    path = ancestor.folder.stages / names[taken - 1]
    if not path.is_dir():
        raise CheckpointError(
            f"--init-from {ancestor.folder.path}: the state at the end of stage '{names[taken - 1]}' is not there any "
            "more (pruned?). Train the run again, or ask for a run that goes on from its end."
        )
    return open_checkpoint(path)


def _check_state(plan: Plan, end: Checkpoint, taken: int) -> None:
    """Raises CheckpointError where the method's state would not be filled by what was stored."""
    method = bare_method(plan)
    for index in range(taken):
        enter(method, index)
    load_model(method, end)


def _check_artefacts(plan: Plan, ancestor: Ancestor, taken: int) -> None:
    """Raises UsageError where a stage to be trained reads what was pruned."""
    pruned = ancestor.run.get("pruned") or {}
    gone = {artefact: stage for stage, artefacts in pruned.items() for artefact in artefacts}
    for stage in _declared(plan)[taken:]:
        if stage["prepare"]:
            return
        for _, artefact in stage["layers"].values():
            if artefact in gone:
                raise UsageError(
                    f"--init-from {ancestor.folder.path}: stage '{stage['name']}' reads the artefact '{artefact}' of "
                    f"stage '{gone[artefact]}', which was pruned. Train that run again, without pruning it."
                )
