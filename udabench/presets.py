"""Presets: YAML files that ship with a method (or with udabench, for all methods). A preset names a row of a paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from udabench.errors import PluginError, unknown
from udabench.registry import Registered

DEFAULT = "default"
"""The preset under all others of a method: what a plain ``run`` does."""


@dataclass(frozen=True)
class Preset:
    """One file.

    Attributes:
        name: the file's stem.
        about: one line.
        values: dotted or nested keys -> values.
        origins: dotted key -> where the value comes from, where the file says so.
        published: metric -> figure of the paper; None where the text has lost it (then ``reason``).
        table: which table and row.
    """

    name: str
    about: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, float] | None = None
    table: str = ""
    reason: str = ""


def presets_of(method: Registered) -> dict[str, Preset]:
    """All presets of a method, udabench's common ones included; a method's own of the same name lies over it."""
    found = {preset.name: preset for preset in _read_all(files("udabench") / "preset_files")}
    folder = _folder(method)
    for preset in _read_all(folder) if folder is not None else ():
        below = found.get(preset.name)
        found[preset.name] = _over(below, preset) if below else preset
    return found


def choose_presets(method: Registered, name: str | None) -> list[Preset]:
    """The method's default and the named preset, weakest first. Raises UsageError for an unknown name."""
    presets = presets_of(method)
    if name is not None and name not in presets:
        raise unknown(f"preset of {method.name}", name, presets)
    names = [DEFAULT, *([name] if name not in (None, DEFAULT) else [])]
    return [presets[n] for n in names if n in presets]


def _over(below: Preset, above: Preset) -> Preset:
    return Preset(
        above.name,
        above.about or below.about,
        {**below.values, **above.values},
        {**below.origins, **above.origins},
        above.published,
        above.table,
        above.reason,
    )


def _folder(method: Registered) -> Traversable | None:
    target = method.entry.target
    package = (target if isinstance(target, str) else target.__module__).partition(":")[0].partition(".")[0]
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
        raw = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        values, origins = _split(raw.pop("values", None) or {}, raw.pop("origin", ""))
        return Preset(name=file.name.removesuffix(".yaml"), values=values, origins=origins, **raw)
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise PluginError(f"Preset {file} cannot be read: {' '.join(str(error).split())}") from error


def _split(values: Mapping[str, Any], origin: str, prefix: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """``{value: 6e-5, origin: P Tab 1}`` -> the value and its origin; keys become dotted."""
    plain: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and set(value) <= {"value", "origin"} and "value" in value:
            plain[prefix + key], origins[prefix + key] = value["value"], value.get("origin", origin)
        elif isinstance(value, Mapping) and not prefix and key in _SECTIONS:
            inner, inner_origins = _split(value, origin, f"{key}.")
            plain |= inner
            origins |= inner_origins
        else:
            plain[prefix + key] = value
            if origin:
                origins[prefix + key] = origin
    return plain, origins


_SECTIONS = ("network", "data", "optim", "evaluate", "engine", "settings")
