"""From defaults, presets, files and overrides to one validated configuration that knows where each value came from."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, get_origin

import platformdirs
import yaml
from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from udabench.config import ASSUMED, MethodConfig, RunConfig, extra_of, flatten, section_of
from udabench.errors import UsageError
from udabench.presets import Preset
from udabench.strict_yaml import load_yaml


@dataclass(frozen=True)
class Layer:
    """Values from one place. Later layers win; a key's origin is the last layer that stated it."""

    origin: str
    values: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted key -> a finer origin (a preset's reference to a table)."""


@dataclass(frozen=True)
class Resolved:
    """A configuration and the origin of each of its values (dotted keys)."""

    config: RunConfig
    origins: Mapping[str, str]

    @property
    def assumed(self) -> tuple[str, ...]:
        """Keys whose value no source states."""
        return tuple(key for key, origin in self.origins.items() if origin.startswith(ASSUMED))


def user_config_path() -> Path:
    """The user's own file, read first: data set folders above all. ``UDABENCH_CONFIG`` names another."""
    named = os.environ.get("UDABENCH_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir("udabench")) / "config.yaml"


def user_layer() -> Layer:
    """The user's own file as the weakest layer; empty where there is none."""
    path = user_config_path()
    return Layer(str(path), read_yaml(path) if path.is_file() else {})


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A YAML file that holds a mapping. Raises UsageError naming the file and the line."""
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{path} must hold keys and values, not a {type(values).__name__}.")
    return values


def parse_overrides(pairs: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """``key=value`` from an option of the command line; values are YAML. Raises UsageError."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} takes key=value, not '{pair}'.")
        try:
            values[key.strip()] = load_yaml(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{option} {key}: '{text}' is not valid YAML: {' '.join(str(error).split())}") from error
    return values


def layer_of(preset: Preset) -> Layer:
    """A preset as a layer."""
    owner = f" of {preset.of}" if preset.of else ""
    return Layer(f"preset {preset.name}{owner}", preset.values, preset.origins)


def resolve(settings: type[MethodConfig], layers: Sequence[Layer], datasets: Iterable[str] = ()) -> Resolved:
    """Merge the layers over the defaults and validate. Reports every problem at once.

    Mappings (``data.roots``, ``network.options``) add up over the layers and can be set by key
    (``network.options.norm``); an empty one clears what the layers before said.

    Args:
        settings: the method's own config class.
        layers: weakest first.
        datasets: known data set names; ``data.<name>`` is short for ``data.roots.<name>``.

    Raises:
        UsageError: unknown keys (the nearest is offered) and values out of bounds (bound and unit named), all listed.
    """
    model = run_model(settings)
    merged: dict[str, Any] = {}
    origins = {key: extra_of(info, "origin", "udabench") for key, _, info in model().leaves()}
    problems: list[str] = []
    for layer in layers:
        for key, value in flatten(layer.values, model):
            try:
                full, inner = _full_key(key, model, set(datasets))
            except UsageError as error:
                problems.append(f"{error} ({layer.origin})")
                continue
            if full is None:
                problems.append(_unknown_key(key, origins, layer.origin))
                continue
            if value is None and not inner and _is_mapping(model, full):
                value = {}
            merged[full] = _added(merged.get(full), value, inner)
            origins[full] = layer.origins.get(key, layer.origin)
    try:
        config = model.model_validate(_nest(merged))
    except ValidationError as error:
        problems += [_explain(dict(e), model, origins) for e in error.errors()]
    if problems:
        raise UsageError("\n".join(problems))
    return Resolved(config, origins)


def run_model(settings: type[MethodConfig]) -> type[RunConfig]:
    """The configuration of a run whose method has these settings."""
    return create_model("RunConfig", __base__=RunConfig, settings=(settings, settings()))


def nested_settings(kinds: Sequence[type[MethodConfig]]) -> type[MethodConfig]:
    """The settings of a method around others: each one's ``inner_settings`` are of the next kind."""
    return reduce(_around, reversed(kinds))


def _around(inner: type[MethodConfig], outer: type[MethodConfig]) -> type[MethodConfig]:
    about = outer.model_fields["inner_settings"].description
    made: type[MethodConfig] = create_model(
        outer.__name__,
        __base__=outer,
        __module__=outer.__module__,
        inner_settings=(inner, Field(default_factory=inner, description=about)),
    )
    return made


def full_key(key: str, model: type[BaseModel]) -> str:
    """What a short or full key means, keys inside of mappings included; itself where it means nothing."""
    try:
        full, inner = _full_key(key, model, set())
    except UsageError:
        return key
    return key if full is None else ".".join(part for part in (full, inner) if part)


def _full_key(key: str, model: type[BaseModel], datasets: set[str]) -> tuple[str | None, str]:
    """The full dotted key that a short or full one means, or None; and the key inside of it, where it is a mapping.

    Raises UsageError for a short key that several sections know.
    """
    if key.startswith("data.") and key.removeprefix("data.") in datasets:
        return "data.roots", key.removeprefix("data.")
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        found = _find(".".join(parts[:length]), model)
        inner = ".".join(parts[length:])
        if found is not None and (not inner or _is_mapping(model, found)):
            return found, inner
    return None, ""


def _find(key: str, model: type[BaseModel]) -> str | None:
    """A field by its full key, or by its short one: the method's settings first, then those of the methods in it, else
    the only section that has it."""
    if _field(model, key) is not None:
        return key
    settings = "settings"
    while section_of(model, settings) is not None:
        if _field(model, f"{settings}.{key}") is not None:
            return f"{settings}.{key}"
        settings += ".inner_settings"
    homes = [
        name for name in model.model_fields if (inner := section_of(model, name)) and _field(inner, key) is not None
    ]
    if len(homes) > 1:
        raise UsageError(f"'{key}' is ambiguous. Write {' or '.join(f'{home}.{key}' for home in homes)}.")
    return f"{homes[0]}.{key}" if homes else None


def _is_mapping(model: type[BaseModel], key: str) -> bool:
    info = _field(model, key)
    return info is not None and (info.annotation is dict or get_origin(info.annotation) in (dict, Mapping))


def _added(before: Any, value: Any, inner: str) -> Any:
    """Mappings of several layers add up, the later one winning where both state a key; an empty one clears what was
    there. All else is replaced."""
    if inner:
        value = {inner: value}
    if isinstance(before, Mapping) and isinstance(value, Mapping) and value:
        return {**before, **value}
    return value


def _field(model: type[BaseModel], key: str) -> FieldInfo | None:
    """The leaf field behind a dotted key."""
    head, _, rest = key.partition(".")
    inner = section_of(model, head)
    if inner is not None:
        return _field(inner, rest) if rest else None
    return None if rest else model.model_fields.get(head)


def _unknown_key(key: str, known: Iterable[str], origin: str) -> str:
    full = list(known)
    short = {name.rpartition(".")[2]: name for name in full}
    near = difflib.get_close_matches(key, full, 1, 0.6) or [
        short[name] for name in difflib.get_close_matches(key.rpartition(".")[2], list(short), 1, 0.6)
    ]
    return f"Unknown key '{key}' ({origin})." + (f" Did you mean '{near[0]}'?" if near else "")


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return nested


def _explain(error: dict[str, Any], model: type[BaseModel], origins: Mapping[str, str]) -> str:
    """One pydantic error in one line: key, value, what is allowed, unit, where it came from."""
    key = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    info = _field(model, key) if key else None
    if info is None:
        parent = next((k for k in origins if key.startswith(k + ".")), None)
        return f"{key}: {message}" + (f" ({origins[parent]})" if parent else "") if key else message
    unit = extra_of(info, "unit")
    return (
        f"{key} = {error['input']!r}{' ' + unit if unit else ''}: {message[0].lower()}{message[1:]} "
        f"({info.description}; from {origins.get(key, 'default')})"
    )
