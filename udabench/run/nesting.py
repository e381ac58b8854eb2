"""A method around a method, and so on: which methods a run is made of, their settings, and the presets of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from udabench.config import MethodConfig, WrapperConfig, flatten
from udabench.errors import PluginError, UsageError, unknown
from udabench.method import Method
from udabench.presets import ADDONS, DEFAULT, Preset, presets_of
from udabench.registry import Registry
from udabench.resolve import Layer, full_key, nested_settings, run_model
from udabench.run.addons import addon_names


@dataclass(frozen=True)
class Nest:
    """The methods of a run, the outermost first, and the presets that say something of it, weakest first.

    A preset of an inner method has the keys that its values have in the whole configuration.
    """

    methods: tuple[type[Method], ...]
    settings: type[MethodConfig]
    presets: tuple[Preset, ...] = ()


def find_methods(registry: Registry, name: str, layers: Sequence[Layer]) -> Nest:
    """The methods that complete values (of a run folder) speak of; without presets. Raises UsageError."""
    return _Search(registry, layers).run(name)


def find_presets(registry: Registry, name: str, preset: str | None, layers: Sequence[Layer]) -> Nest:
    """The methods that a request speaks of, with their presets.

    Under each method's ``default`` lies that of the method in it; under its preset lies the inner method's that
    ``inner_preset`` names, else the one of the same name. What a preset says of its inner method is left out where
    the inner method is another one.

    Args:
        name: of the outermost method.
        preset: as asked for.
        layers: what is stronger than presets.

    Raises:
        UsageError: unknown names, a method around itself.
    """
    return _Search(registry, layers, preset or DEFAULT).run(name)


@dataclass
class _Search:
    """Follows ``inner`` from method to method. ``defaults`` and ``chosen`` hold the presets that lie under and in the
    place of the one that is asked for; None is asked for where no presets are wanted."""

    registry: Registry
    layers: Sequence[Layer]
    preset: str | None = None
    names: list[str] = field(default_factory=list)
    methods: list[type[Method]] = field(default_factory=list)
    defaults: list[Preset] = field(default_factory=list)
    chosen: list[Preset] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def run(self, name: str) -> Nest:
        self._enter(name, self.preset)
        while issubclass(kind := self.methods[-1].Config, WrapperConfig):
            self._go_inside(kind.model_fields["inner"].default)
        if self.preset is not None and self.preset not in self.known | {DEFAULT}:
            raise unknown(f"preset of {' or '.join(self.names)}", self.preset, self.known)
        return Nest(tuple(self.methods), self._settings(), (*self.defaults, *self.chosen))

    def _go_inside(self, usual: str) -> None:
        name = str(self._said("inner", self.chosen, self.defaults) or usual)
        if not name:
            raise UsageError(f"{self.names[-1]} wraps another method. Name it with --set inner=<method>.")
        if _method(self.registry, name) in self.methods:
            around = " around ".join([*self.names, name])
            raise UsageError(f"{around}: no method wraps itself. Name another one with --set inner=<method>.")
        self._leave_out_others(name, usual)
        preset = None if self.preset is None else self._inner_preset(name)
        if preset is not None:
            self._note_inner_preset(preset)
        self._enter(name, preset)

    def _inner_preset(self, name: str) -> str:
        presets = presets_of(self.registry.methods.describe(name))
        said = self._said("inner_preset", self.chosen)
        if said is None and self.preset in presets and self.preset != DEFAULT:
            said = self.preset
        said = said or self._said("inner_preset", self.defaults) or DEFAULT
        if said not in presets:
            raise unknown(f"preset of {name}", str(said), presets)
        return str(said)

    def _enter(self, name: str, preset: str | None) -> None:
        """Take a method in, its presets under those of the methods around it."""
        method = _method(self.registry, name)
        self.names.append(name)
        self.methods.append(method)
        if preset is None:
            return
        presets = presets_of(self.registry.methods.describe(name), wraps=issubclass(method.Config, WrapperConfig))
        self.known |= set(presets)
        outermost = len(self.names) == 1
        under = [] if outermost and preset == DEFAULT else [DEFAULT]
        over = [preset] if preset in presets and preset not in under else []
        self._check_addons([presets[each] for each in under + over])
        self.defaults[:0] = [self._moved(presets[each]) for each in under]
        self.chosen[:0] = [self._moved(presets[each]) for each in over]

    def _check_addons(self, presets: Sequence[Preset]) -> None:
        """Raises UsageError where a preset of an inner method is one for add-ons that are not around it."""
        *around, name = self.names
        for preset in presets if around else ():
            wanted = addon_names(self.registry, preset.values.get(ADDONS))
            if not set(wanted) <= set(around):
                said = f"--method {name} --preset {preset.name}"
                raise UsageError(f"Preset {preset.name} of {name} needs the add-ons {', '.join(wanted)}: say {said}.")

    def _settings(self) -> type[MethodConfig]:
        return nested_settings([method.Config for method in self.methods])

    def _key(self, name: str) -> str:
        """The full key of one of the last method's own values."""
        return "settings." + "inner_settings." * (len(self.methods) - 1) + name

    def _moved(self, preset: Preset) -> Preset:
        """A preset of the last method, its keys those of the whole configuration."""
        model = run_model(self.methods[-1].Config)
        keys = {key: full_key(key, model) for key in preset.values if key != ADDONS}
        own = self.methods[-1].Config.model_fields
        for key, full in keys.items():
            # What a preset with add-ons says of them stays outside.
            if full.startswith("settings.") and (full.split(".")[1] in own or ADDONS not in preset.values):
                keys[key] = self._key(full.removeprefix("settings."))
        return replace(
            preset,
            of=self.names[-1] if len(self.names) > 1 else "",
            values={full: preset.values[key] for key, full in keys.items()},
            origins={full: preset.origins[key] for key, full in keys.items() if key in preset.origins},
        )

    def _said(self, name: str, *presets: Sequence[Preset]) -> Any:
        """The last method's value of that name, from the layers or else the presets that have it; None: nowhere."""
        key, model = self._key(name), run_model(self._settings())
        for layer in reversed(self.layers):
            for said, value in flatten(layer.values, model):
                if full_key(said, model) == key:
                    return value
        for group in presets:
            for preset in reversed(group):
                if key in preset.values:
                    return preset.values[key]
        return None

    def _leave_out_others(self, inner: str, usual: str) -> None:
        """Drop what presets say of another inner method than this one."""
        key = self._key("inner")
        named = usual
        for group in (self.defaults, self.chosen):
            for index, preset in enumerate(group):
                named = preset.values.get(key, named)
                if named != inner:
                    group[index] = _without(preset, (self._key("inner_preset"), self._key("inner_settings.")))

    def _note_inner_preset(self, preset: str) -> None:
        """Say in the configuration which preset is taken, instead of all that were named on the way."""
        key = self._key("inner_preset")
        for group in (self.defaults, self.chosen):
            group[:] = [_without(each, (key,)) for each in group]
        if preset != DEFAULT:
            last = self.chosen or self.defaults
            origins = {**last[-1].origins, key: f"preset {last[-1].name}"}
            last[-1] = replace(last[-1], values={**last[-1].values, key: preset}, origins=origins)


def _without(preset: Preset, keys: tuple[str, ...]) -> Preset:
    values = {key: value for key, value in preset.values.items() if not key.startswith(keys)}
    return replace(preset, values=values, origins={k: origin for k, origin in preset.origins.items() if k in values})


def _method(registry: Registry, name: str) -> type[Method]:
    method: type[Method] = registry.methods.get(name)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise PluginError(f"{method!r} is registered as a method but is no subclass of udabench.Method.")
    return method
