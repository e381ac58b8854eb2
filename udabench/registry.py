"""Names -> classes. A registry is a value that is passed along; there is no global one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pluggy

from udabench.errors import PluginError, unknown
from udabench.hookspecs import Entry


@dataclass(frozen=True)
class Registered:
    """An entry and the plugin that it came from."""

    name: str
    entry: Entry
    origin: str


class Catalogue:
    """The entries of one kind, imported when they are first asked for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Registered] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Registered]:
        return iter(sorted(self._entries.values(), key=lambda r: r.name))

    def names(self) -> list[str]:
        return sorted(self._entries)

    def add(self, name: str, entry: Entry, origin: str) -> None:
        """Raises PluginError when the name is taken."""
        if name in self._entries:
            raise PluginError(f"{self.kind} '{name}' is already registered by plugin '{self._entries[name].origin}'")
        self._entries[name] = Registered(name, entry, origin)

    def drop(self, origin: str) -> None:
        """Forget what a plugin registered."""
        self._entries = {name: r for name, r in self._entries.items() if r.origin != origin}

    def describe(self, name: str) -> Registered:
        """The entry of a name. Raises UsageError with the nearest name when it is unknown."""
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def get(self, name: str) -> Any:
        """The class behind a name. Raises UsageError (unknown name) or PluginError (it cannot be imported)."""
        registered = self.describe(name)
        target = registered.entry.target
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise PluginError(
                f"{self.kind} '{name}' of plugin '{registered.origin}' cannot be imported from '{target}': {error}"
            ) from error


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that was found, and its error if it is broken."""

    name: str
    origin: str
    provides: tuple[str, ...] = ()
    error: str | None = None


@dataclass
class Registry:
    """Everything that the installed and local plugins registered."""

    methods: Catalogue = field(default_factory=lambda: Catalogue("method"))
    datasets: Catalogue = field(default_factory=lambda: Catalogue("data set"))
    backbones: Catalogue = field(default_factory=lambda: Catalogue("backbone"))
    heads: Catalogue = field(default_factory=lambda: Catalogue("head"))
    networks: Catalogue = field(default_factory=lambda: Catalogue("network"))
    translators: Catalogue = field(default_factory=lambda: Catalogue("translator"))
    reporters: Catalogue = field(default_factory=lambda: Catalogue("reporter"))
    analyses: Catalogue = field(default_factory=lambda: Catalogue("analysis"))
    plugins: list[PluginInfo] = field(default_factory=list)
    events: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager("udabench"))

    def catalogue(self, kind: str) -> Catalogue:
        """By hook suffix: ``methods``, ``datasets``, ..."""
        found: Catalogue = getattr(self, kind)
        return found
