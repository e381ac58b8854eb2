"""The public names for plugin authors. Each is imported on first use, so that ``udabench --help`` needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from udabench.hookspecs import API_VERSION, Entry, hookimpl

if TYPE_CHECKING:
    from udabench.config import MethodConfig, setting
    from udabench.dataset import Dataset
    from udabench.errors import DataError, UserError
    from udabench.labels import IGNORE, LabelSpace
    from udabench.method import Batch, Loss, Method, Optimizer, Panel, Probe, Samples, Scalar, Stage, Update
    from udabench.network import Backbone, DecodeHead, Network, Output
    from udabench.size import Size
    from udabench.task import Task

__version__ = "0.1.0"

_HOMES = {
    "udabench.config": ("MethodConfig", "setting"),
    "udabench.dataset": ("Dataset",),
    "udabench.errors": ("DataError", "UserError"),
    "udabench.labels": ("IGNORE", "LabelSpace"),
    "udabench.method": (
        "Batch", "Loss", "Method", "Optimizer", "Panel", "Probe", "Samples", "Scalar", "Stage", "Update",
    ),
    "udabench.network": ("Backbone", "DecodeHead", "Network", "Output"),
    "udabench.size": ("Size",),
    "udabench.task": ("Task",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "API_VERSION", "IGNORE", "Backbone", "Batch", "DataError", "Dataset", "DecodeHead", "Entry", "LabelSpace", "Loss",
    "Method", "MethodConfig", "Network", "Optimizer", "Output", "Panel", "Probe", "Samples", "Scalar", "Size", "Stage",
    "Task", "Update", "UserError", "hookimpl", "setting",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'udabench' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
