"""What a stage declares, as JSON: kept in ``run.json``, and compared where one run takes over another's stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from udabench.method import Optimizer, Stage

LEFT_OUT = ("step", "start", "prepare", "after_step", "pixel_bytes")
"""Functions, whose doings cannot be told, and what changes no training."""


def declaration(stage: Stage) -> dict[str, Any]:
    """All of a stage that is no function. Lengths and learning rates are in it, parameters only by their number."""
    plain = {field.name: getattr(stage, field.name) for field in fields(stage) if field.name not in LEFT_OUT}
    optimizers = {name: _optimizer(declared) for name, declared in stage.optimizers.items()}
    return {**_json(plain | {"optimizers": optimizers}), "prepare": stage.prepare is not None}


def declarations(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Of a method's stages, in order."""
    return [declaration(stage) for stage in stages]


def refreshes(declared: Mapping[str, Any]) -> int:
    """How often a stage prepares."""
    if not declared["prepare"]:
        return 0
    every = declared["prepare_every"] or max(declared["iterations"], 1)
    return max(1, -(-int(declared["iterations"]) // int(every)))


def _optimizer(declared: Optimizer) -> dict[str, Any]:
    groups = [
        {"values": sum(p.numel() for p in group.parameters), "lr": group.lr, "weight_decay": group.weight_decay}
        for group in declared.groups
    ]
    schedule = declared.schedule
    says: dict[str, Any] = asdict(schedule) if is_dataclass(schedule) and not isinstance(schedule, type) else {}
    options = dict(declared.options)
    return {
        "kind": declared.kind,
        "groups": groups,
        "options": options,
        "schedule": {"kind": type(schedule).__name__, **says},
    }


def _json(value: Any) -> Any:
    """As it reads when it comes back from a JSON file."""
    if is_dataclass(value) and not isinstance(value, type):
        return _json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
