"""Presets: YAML files that ship with a method (or with udabench, for all methods). A preset names a row of a paper.

Keys of a file: ``about``, ``table``, ``origin`` (of all its values), ``values``, ``extends`` (another preset of the
method, whose values lie under its own), and the paper's figures: ``published`` as task -> metric -> figure, or as
metric -> figure of the one ``task``; null with a ``reason`` where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from udabench.errors import PluginError, UserError, unknown
from udabench.registry import Registered
from udabench.strict_yaml import load_yaml

ADDONS = "addons"
"""The key, of a request or a preset, that names wrappers around the method."""
DEFAULT = "default"
"""The preset under all others of a method: what a plain ``run`` does."""


@dataclass(frozen=True)
class Preset:
    """One file.

    Attributes:
        name: the file's stem.
        about: one line.
        values: dotted or nested keys -> values, those of the preset that it extends included.
        origins: dotted key -> where the value comes from, where the file says so.
        published: task -> metric -> figure of the paper; None where there is none (then ``reason``).
        table: which table and row.
        extends: the preset that it builds on.
        of: the method whose preset it is, where that is not the run's own but one inside of it.
    """

    name: str
    about: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] | None = None
    table: str = ""
    reason: str = ""
    extends: str | None = None
    of: str = ""


def presets_of(method: Registered, wraps: bool = False) -> dict[str, Preset]:
    """All presets of a method, udabench's common ones included; a method's own of the same name lies over it.

    Those of a method that wraps another hold its own values only: the common ones reach it with the inner method's.

    Raises PluginError for a file that cannot be read, and for one that extends itself or what is not there.
    """
    found = {preset.name: preset for preset in _read_all(files("udabench") / "preset_files")}
    if wraps:
        found = {name: replace(preset, about=_INSIDE, values={}, origins={}) for name, preset in found.items()}
    folder = _folder(method)
    for preset in _read_all(folder) if folder is not None else ():
        below = found.get(preset.name)
        found[preset.name] = _over(below, preset) if below else preset
    return {name: _extended(preset, found, method.name) for name, preset in found.items()}


def _over(below: Preset, above: Preset) -> Preset:
    return replace(
        above,
        about=above.about or below.about,
        values={**below.values, **above.values},
        origins={**below.origins, **above.origins},
        extends=above.extends or below.extends,
    )


def _extended(preset: Preset, presets: Mapping[str, Preset], method: str) -> Preset:
    """The preset with the values of all that it builds on under its own."""
    chain = [preset]
    while (name := chain[-1].extends) is not None:
        if name not in presets:
            error: UserError = unknown(f"preset of {method}", name, presets)
            raise PluginError(f"Preset '{chain[-1].name}' extends what is not there. {error}")
        if name in (seen.name for seen in chain):
            raise PluginError(f"Presets of {method} extend each other: {' -> '.join(p.name for p in chain)} -> {name}.")
        chain.append(presets[name])
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for each in reversed(chain):
        # A value that is stated again takes its origin from where it is stated, also if that is silent on it.
        origins = {key: origin for key, origin in origins.items() if key not in each.values} | dict(each.origins)
        values |= each.values
    return replace(preset, values=values, origins=origins)


def _folder(method: Registered) -> Traversable | None:
    target = method.entry.target
    module = (target if isinstance(target, str) else target.__module__).partition(":")[0]
    # Beside the module: several methods of one plugin have folders of their own.
    package = module.rpartition(".")[0] or module
    try:
        folder = files(package) / "presets"
        return folder if folder.is_dir() else None
    # A plugin that is one file is no package: it has no presets of its own.
    except (TypeError, ModuleNotFoundError, AttributeError):
        return None


def _read_all(folder: Traversable) -> Iterator[Preset]:
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            yield _read(file)


def _read(file: Traversable) -> Preset:
    try:
        raw = load_yaml(file.read_text(encoding="utf-8")) or {}
        values, origins = _split(raw.pop("values", None) or {}, raw.pop("origin", ""))
        published = _published(raw.pop("published", None), raw.pop("task", None))
        return Preset(name=file.name.removesuffix(".yaml"), values=values, origins=origins, published=published, **raw)
    except (yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
        raise PluginError(f"Preset {file} cannot be read: {' '.join(str(error).split())}") from error


def _published(figures: Mapping[str, Any] | None, task: str | None) -> dict[str, dict[str, float]] | None:
    """Task -> metric -> figure, from that or from metric -> figure and the task. Raises ValueError without a task."""
    if not figures:
        return None
    by_task = {task: figures} if task is not None else figures
    if not all(isinstance(metrics, Mapping) for metrics in by_task.values()):
        raise ValueError("published figures belong to a task: state 'task: <source>-<target>'")
    return {name: {metric: float(figure) for metric, figure in of.items()} for name, of in by_task.items()}


def _split(values: Mapping[str, Any], origin: str, prefix: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """``{value: 6e-5, origin: P Tab 1}`` -> the value and its origin; keys become dotted."""
    plain: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and set(value) <= {"value", "origin"} and "value" in value:
            plain[prefix + key], origins[prefix + key] = value["value"], value.get("origin", origin)
        elif isinstance(value, Mapping) and (key == _INNER if prefix else key in _SECTIONS):
            inner, inner_origins = _split(value, origin, f"{prefix}{key}.")
            plain |= inner
            origins |= inner_origins
        else:
            plain[prefix + key] = value
            if origin:
                origins[prefix + key] = origin
    return plain, origins


_INNER = "inner_settings"
_INSIDE = "the values of the method inside"
_SECTIONS = ("network", "data", "optim", "evaluate", "engine", "settings")
