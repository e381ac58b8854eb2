"""A plan: everything about a run that is known before anything is opened or written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from udabench.config import RunConfig
from udabench.dataset import Dataset
from udabench.errors import PluginError, UsageError
from udabench.method import Method
from udabench.parts.wrapper import Wrapper
from udabench.presets import Preset, presets_of
from udabench.registry import Registry
from udabench.resolve import Layer, Resolved, layer_of, read_yaml, resolve, user_layer
from udabench.run.addons import unfold
from udabench.run.ancestor import KEY, with_ancestor
from udabench.run.nesting import Nest, find_methods, find_presets
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
    ancestor: str | None = None
    """What the run of ``init_from`` is known as, where its folder cannot say it yet."""


@dataclass(frozen=True)
class Plan:
    """A validated configuration with its task, and the classes behind its names.

    Attributes:
        methods: the method and those that it wraps, the outermost first.
        presets: weakest first, those of wrapped methods (``of``) included.
    """

    registry: Registry
    resolved: Resolved
    task: Task
    methods: tuple[type[Method], ...]
    source_set: type[Dataset]
    target_set: type[Dataset]
    presets: Sequence[Preset] = ()
    plugin_files: tuple[Path, ...] = ()

    @property
    def config(self) -> RunConfig:
        return self.resolved.config

    @property
    def method(self) -> type[Method]:
        """The outermost."""
        return self.methods[0]

    @property
    def row_name(self) -> str:
        """Folder name without the seed: ``<method>[_<inner>][-<preset>]-<network>-<hash8>``."""
        config = self.config
        parts = [
            "_".join(config.methods),
            *([config.preset] if config.preset else []),
            config.network.name,
            config.hash,
        ]
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(parts))

    @property
    def folder_name(self) -> str:
        """``<task>/<row>-s<seed>``."""
        return f"{self.task.name}/{self.row_name}-s{self.config.seed}"

    def with_seed(self, seed: int) -> Plan:
        """The same run with another seed, to which the run that it begins from may be known otherwise."""
        if seed == self.config.seed:
            return self
        config = self.config.model_copy(update={"seed": seed, KEY: None})
        return replace(self, resolved=with_ancestor(replace(self.resolved, config=config)))


def make_plan(registry: Registry, request: Request, plugin_files: Sequence[Path] = ()) -> Plan:
    """Resolve a request. Raises UsageError with every problem of the configuration at once."""
    source_set: type[Dataset] = registry.datasets.get(request.source)
    target_set: type[Dataset] = registry.datasets.get(request.target)
    preset = request.preset
    if preset is None and source_set.default_preset in presets_of(registry.methods.describe(request.method)):
        preset = source_set.default_preset
    method, said = unfold(registry, request.method, preset, _request_layers(request, preset))
    nest = find_presets(registry, method, preset, said)
    sizes = _size_layer(request, source_set, target_set)
    layers = [user_layer(), sizes, *map(layer_of, nest.presets), *said]
    resolved = with_ancestor(_resolve_sized(nest, layers, sizes, registry.datasets.names()), request.ancestor)
    return _plan(registry, resolved, nest, source_set, target_set, plugin_files)


def _request_layers(request: Request, preset: str | None) -> list[Layer]:
    """What is stronger than presets."""
    file = request.config_file
    names = {"method": request.method, "source": request.source, "target": request.target, "preset": preset}
    usual = {"preset": f"data set {request.source}"} if preset != request.preset else {}
    return [
        *([Layer(str(file), read_yaml(file))] if file is not None else []),
        Layer(COMMAND_LINE, request.overrides),
        Layer(COMMAND_LINE, {**names, **request.flags}, usual),
    ]


def row_of(plan: Plan) -> RunConfig:
    """The configuration that a plan's preset alone gives on its data sets: the row of the paper, where it is one."""
    config, owner = plan.config, plan.presets[-1].of or plan.config.method
    request = Request(owner, config.source, config.target, config.preset)
    method, said = unfold(plan.registry, owner, config.preset, _request_layers(request, config.preset))
    nest = find_presets(plan.registry, method, config.preset, said)
    sizes = _size_layer(request, plan.source_set, plan.target_set)
    return _resolve_sized(nest, [sizes, *map(layer_of, nest.presets), *said], sizes).config


def plan_from_values(
    registry: Registry, values: Mapping[str, Any], origins: Mapping[str, str], plugin_files: Sequence[Path] = ()
) -> Plan:
    """The plan of a run folder, from the configuration that it stored."""
    missing = [key for key in ("method", "source", "target") if key not in values]
    if missing:
        raise UsageError(f"The stored configuration lacks {', '.join(missing)}: the run folder is damaged.")
    source_set: type[Dataset] = registry.datasets.get(str(values["source"]))
    target_set: type[Dataset] = registry.datasets.get(str(values["target"]))
    layers = [Layer("run folder", values)]
    nest = find_methods(registry, str(values["method"]), layers)
    resolved = resolve(nest.settings, layers, registry.datasets.names())
    stored = Resolved(resolved.config, dict(origins))
    return _plan(registry, stored, nest, source_set, target_set, plugin_files)


def _plan(
    registry: Registry,
    resolved: Resolved,
    nest: Nest,
    source_set: type[Dataset],
    target_set: type[Dataset],
    plugin_files: Sequence[Path],
) -> Plan:
    config = resolved.config
    task = choose_task(config.source, config.target, source_set, target_set, config.data.classes)
    _check_wrapping(registry, config, nest)
    for name, method in zip(config.methods, nest.methods, strict=True):
        reason = method.why_not(task, config.network.name)
        if reason:
            raise UsageError(f"{name} cannot run {task.name} with {config.network.name}: {reason}")
    return Plan(registry, resolved, task, nest.methods, source_set, target_set, nest.presets, tuple(plugin_files))


def _check_wrapping(registry: Registry, config: RunConfig, nest: Nest) -> None:
    """Raises UsageError where a method declines the one that it wraps, and names those that it takes."""
    for (outer, wrapper), (inner, wrapped) in pairwise(zip(config.methods, nest.methods, strict=True)):
        if not issubclass(wrapper, Wrapper) or (reason := wrapper.why_not_around(wrapped)) is None:
            continue
        taken = [
            name for name, other in _methods(registry) if other is not wrapper and not wrapper.why_not_around(other)
        ]
        raise UsageError(f"{outer} cannot be wrapped around {inner}: {reason} It takes {', '.join(taken) or 'none'}.")


def _methods(registry: Registry) -> Iterator[tuple[str, type[Method]]]:
    """Those that can be imported."""
    for known in registry.methods:
        try:
            yield known.name, registry.methods.get(known.name)
        except PluginError:
            continue


def _resolve_sized(nest: Nest, layers: Sequence[Layer], sizes: Layer, datasets: Sequence[str] = ()) -> Resolved:
    """The configuration, with the data sets' usual sizes also where a preset says null, over another preset's."""
    resolved = resolve(nest.settings, layers, datasets)
    data = resolved.config.data
    unsaid = {key: size for key, size in sizes.values.items() if getattr(data, key.removeprefix("data.")) is None}
    return resolve(nest.settings, [*layers, replace(sizes, values=unsaid)], datasets) if unsaid else resolved


def _size_layer(request: Request, source_set: type[Dataset], target_set: type[Dataset]) -> Layer:
    values = {"data.source_size": source_set.train_size, "data.target_size": target_set.train_size}
    origins = {"data.source_size": f"data set {request.source}", "data.target_size": f"data set {request.target}"}
    return Layer("data set", values, origins)
