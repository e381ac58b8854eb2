"""A plan: everything about a run that is known before anything is opened or written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from udabench.config import RunConfig
from udabench.dataset import Dataset
from udabench.errors import UsageError
from udabench.method import Method
from udabench.presets import Preset, choose_presets, presets_of
from udabench.registry import Registry
from udabench.resolve import Layer, Resolved, layer_of, read_yaml, resolve, user_layer
from udabench.task import Task, choose_task

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Request:
    """What a user asks for. None: not said."""

    method: str
    source: str
    target: str = "cityscapes"
    preset: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> value, from options of the command line; they win over all."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """``--set``: full or short keys."""
    config_file: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A validated configuration with its task, and the classes behind its names."""

    registry: Registry
    resolved: Resolved
    task: Task
    method: type[Method]
    source_set: type[Dataset]
    target_set: type[Dataset]
    presets: Sequence[Preset] = ()
    plugin_files: tuple[Path, ...] = ()

    @property
    def config(self) -> RunConfig:
        return self.resolved.config

    @property
    def row_name(self) -> str:
        """Folder name without the seed: ``<method>[-<preset>]-<network>-<hash8>``."""
        config = self.config
        parts = [config.method, *([config.preset] if config.preset else []), config.network.name, config.hash]
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(parts))

    @property
    def folder_name(self) -> str:
        """``<task>/<row>-s<seed>``."""
        return f"{self.task.name}/{self.row_name}-s{self.config.seed}"

    def with_seed(self, seed: int) -> Plan:
        """The same run with another seed."""
        from dataclasses import replace

        return replace(self, resolved=replace(self.resolved, config=self.config.model_copy(update={"seed": seed})))


def make_plan(registry: Registry, request: Request, plugin_files: Sequence[Path] = ()) -> Plan:
    """Resolve a request. Raises UsageError with every problem of the configuration at once."""
    described = registry.methods.describe(request.method)
    method: type[Method] = registry.methods.get(request.method)
    source_set: type[Dataset] = registry.datasets.get(request.source)
    target_set: type[Dataset] = registry.datasets.get(request.target)
    preset = request.preset
    if preset is None and source_set.default_preset in presets_of(described):
        preset = source_set.default_preset
    presets = choose_presets(described, preset)
    layers = [user_layer(), _size_layer(request, source_set, target_set), *map(layer_of, presets)]
    if request.config_file is not None:
        layers.append(Layer(str(request.config_file), read_yaml(request.config_file)))
    layers.append(Layer(COMMAND_LINE, request.overrides))
    names = {"method": request.method, "source": request.source, "target": request.target, "preset": preset}
    usual = {"preset": f"data set {request.source}"} if preset != request.preset else {}
    layers.append(Layer(COMMAND_LINE, {**names, **request.flags}, usual))
    resolved = resolve(method.Config, layers, registry.datasets.names())
    return _plan(registry, resolved, method, source_set, target_set, presets, plugin_files)


def plan_from_values(
    registry: Registry, values: Mapping[str, Any], origins: Mapping[str, str], plugin_files: Sequence[Path] = ()
) -> Plan:
    """The plan of a run folder, from the configuration that it stored."""
    missing = [key for key in ("method", "source", "target") if key not in values]
    if missing:
        raise UsageError(f"The stored configuration lacks {', '.join(missing)}: the run folder is damaged.")
    method: type[Method] = registry.methods.get(str(values["method"]))
    source_set: type[Dataset] = registry.datasets.get(str(values["source"]))
    target_set: type[Dataset] = registry.datasets.get(str(values["target"]))
    resolved = resolve(method.Config, [Layer("run folder", values)], registry.datasets.names())
    stored = Resolved(resolved.config, dict(origins))
    return _plan(registry, stored, method, source_set, target_set, (), plugin_files)


def _plan(
    registry: Registry,
    resolved: Resolved,
    method: type[Method],
    source_set: type[Dataset],
    target_set: type[Dataset],
    presets: Sequence[Preset],
    plugin_files: Sequence[Path],
) -> Plan:
    config = resolved.config
    task = choose_task(config.source, config.target, source_set, target_set, config.data.classes)
    reason = method.why_not(task, config.network.name)
    if reason:
        raise UsageError(f"{config.method} cannot run {task.name} with {config.network.name}: {reason}")
    return Plan(registry, resolved, task, method, source_set, target_set, presets, tuple(plugin_files))


def _size_layer(request: Request, source_set: type[Dataset], target_set: type[Dataset]) -> Layer:
    values = {"data.source_size": source_set.train_size, "data.target_size": target_set.train_size}
    origins = {"data.source_size": f"data set {request.source}", "data.target_size": f"data set {request.target}"}
    return Layer("data set", values, origins)
