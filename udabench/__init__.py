"""The public names for plugin authors. Each is imported on first use, so that ``udabench --help`` needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from udabench.hookspecs import API_VERSION, Entry, hookimpl

if TYPE_CHECKING:
    from udabench.config import MethodConfig, setting
    from udabench.dataset import Dataset
    from udabench.errors import DataError, UsageError, UserError
    from udabench.labels import IGNORE, LabelSpace
    from udabench.method import (
        Batch,
        Context,
        Event,
        Group,
        Loss,
        Method,
        Mining,
        Optimizer,
        Panel,
        Probe,
        Remark,
        Samples,
        Scalar,
        Setup,
        Shared,
        Stage,
        Update,
        Workspace,
    )
    from udabench.network import (
        Backbone,
        BranchedHead,
        DecodeHead,
        EmbeddingHead,
        Head,
        Network,
        Normalization,
        Output,
        WeightsReport,
    )
    from udabench.schedules import LinearSchedule, PolySchedule, Schedule, StepSchedule
    from udabench.size import Size
    from udabench.task import Task

__version__ = "0.1.0"

_HOMES = {
    "udabench.config": ("MethodConfig", "setting"),
    "udabench.dataset": ("Dataset",),
    "udabench.errors": ("DataError", "UsageError", "UserError"),
    "udabench.labels": ("IGNORE", "LabelSpace"),
    "udabench.method": (
        "Batch", "Context", "Event", "Group", "Loss", "Method", "Mining", "Optimizer", "Panel", "Probe", "Remark",
        "Samples", "Scalar", "Setup", "Shared", "Stage", "Update", "Workspace",
    ),
    "udabench.network": (
        "Backbone", "BranchedHead", "DecodeHead", "EmbeddingHead", "Head", "Network", "Normalization", "Output",
        "WeightsReport",
    ),
    "udabench.schedules": ("LinearSchedule", "PolySchedule", "Schedule", "StepSchedule"),
    "udabench.size": ("Size",),
    "udabench.task": ("Task",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "API_VERSION", "IGNORE", "Backbone", "Batch", "BranchedHead", "Context", "DataError", "Dataset", "DecodeHead",
    "EmbeddingHead", "Entry", "Event", "Group", "Head", "LabelSpace", "LinearSchedule", "Loss", "Method",
    "MethodConfig", "Mining", "Network", "Normalization", "Optimizer", "Output", "Panel", "PolySchedule", "Probe",
    "Remark", "Samples", "Scalar", "Schedule", "Setup", "Shared", "Size", "Stage", "StepSchedule", "Task", "Update",
    "UsageError", "UserError", "WeightsReport", "Workspace", "hookimpl", "setting",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'udabench' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
