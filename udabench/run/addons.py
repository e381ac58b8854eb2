"""Add-ons: ``addons=sam`` beside a method is a wrapper around it, said the other way round.

``--method dacs --set addons=sam,mic`` is ``--method mic --set inner=sam_addon --set inner_settings.inner=dacs``: one
configuration and one hash. A wrapper whose plain name a whole method has is registered as ``<name>_addon``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from udabench.config import ADDON_SUFFIX, MethodConfig, RunConfig, flatten
from udabench.errors import PluginError, UsageError, unknown
from udabench.method import Method
from udabench.parts.wrapper import Wrapper
from udabench.presets import ADDONS, DEFAULT, presets_of
from udabench.registry import Registry
from udabench.resolve import Layer, run_model


def unfold(registry: Registry, method: str, preset: str | None, layers: Sequence[Layer]) -> tuple[str, list[Layer]]:
    """A request with add-ons, the innermost first, as one for the outermost of them; without them as it is.

    What the layers say of the method goes inside with it; other keys are left to the add-ons.

    Args:
        layers: what is stronger than presets, weakest first. Where none names add-ons the method's preset may.

    Returns:
        The outermost method, and the layers.

    Raises:
        UsageError: an add-on is unknown, no wrapper, or named twice; a layer names what is wrapped otherwise.
    """
    value, origin = _stated(registry, method, preset, layers)
    names = addon_names(registry, value)
    rest = [replace(layer, values={k: v for k, v in layer.values.items() if k != ADDONS}) for layer in layers]
    if not names:
        return method, rest
    chain = [*reversed(names), method]
    config: type[MethodConfig] = registry.methods.get(method).Config
    moved = [_moved(layer, config, chain) for layer in rest]
    wrapped = {f"settings.{'inner_settings.' * depth}inner": name for depth, name in enumerate(chain[1:])}
    return chain[0], [*moved, Layer(f"{ADDONS}, {origin}", {"method": chain[0], **wrapped})]


def addon_names(registry: Registry, value: Any) -> list[str]:
    """The registered names of the wrappers that a value of ``addons`` names. Raises UsageError."""
    named = [] if value is None else value
    if isinstance(named, str):
        named = named.split(",") if named else []
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        raise UsageError(f"{ADDONS} = {value!r}: names of add-ons are wanted, such as {ADDONS}=sam or [sam, mic].")
    found = [_find(registry, name.strip()) for name in named]
    for name in found:
        if found.count(name) > 1:
            raise UsageError(f"{ADDONS} names {name.removesuffix(ADDON_SUFFIX)} twice. Name each add-on once.")
    return found


def _find(registry: Registry, name: str) -> str:
    for known in (name, name + ADDON_SUFFIX):
        if known in registry.methods and _wraps(registry.methods.get(known)):
            return known
    addons = [known.removesuffix(ADDON_SUFFIX) for known in _addons(registry)]
    if name in registry.methods:
        raise UsageError(f"{ADDONS}: {name} is no add-on, it wraps no other method. Add-ons: {', '.join(addons)}.")
    raise unknown("add-on", name, addons)


def _addons(registry: Registry) -> Iterator[str]:
    for known in registry.methods:
        try:
            if _wraps(registry.methods.get(known.name)):
                yield known.name
        except PluginError:
            continue


def _wraps(method: type[Method]) -> bool:
    return isinstance(method, type) and issubclass(method, Wrapper)


def _stated(registry: Registry, method: str, preset: str | None, layers: Sequence[Layer]) -> tuple[Any, str]:
    """The strongest value of ``addons``, and where it is from."""
    for layer in reversed(layers):
        if ADDONS in layer.values:
            return layer.values[ADDONS], layer.origin
    presets = presets_of(registry.methods.describe(method))
    for name in (preset, DEFAULT):
        if name in presets and ADDONS in presets[name].values:
            return presets[name].values[ADDONS], f"preset {name}"
    return None, ""


def _moved(layer: Layer, config: type[MethodConfig], chain: Sequence[str]) -> Layer:
    """The layer with the keys that are the method's own where the method lies: inside of all add-ons."""
    values = {}
    for key, value in flatten(layer.values, run_model(config)):
        own = key.removeprefix("settings.")
        head = own.partition(".")[0]
        if head in config.model_fields and (own != key or head not in RunConfig.model_fields):
            key = "settings." + "inner_settings." * (len(chain) - 1) + own
        elif own.rpartition(".")[2] == "inner":
            raise UsageError(
                f"{key} = {value} ({layer.origin}): with these add-ons {' is around '.join(chain)}. Leave it out, or "
                f"say --method {chain[0]} without {ADDONS}."
            )
        values[key] = value
    return replace(layer, values=values)
