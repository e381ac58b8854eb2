"""Finds plugins: entry points of the group ``udabench`` and local files. A broken one costs nobody else."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from udabench import hookspecs
from udabench.errors import PluginError, UsageError
from udabench.hookspecs import Entry
from udabench.registry import PluginInfo, Registry

KINDS = ("methods", "datasets", "backbones", "heads", "networks", "translators", "reporters", "analyses")


def load_registry(files: Sequence[Path] = (), installed: Sequence[EntryPoint] | None = None) -> Registry:
    """All plugins that can be loaded.

    Args:
        files: local plugin files; one that cannot be loaded is the user's own and raises PluginError.
        installed: entry points; None: those of the installed distributions.
    """
    registry = Registry()
    registry.events.add_hookspecs(hookspecs)
    for point in entry_points(group=hookspecs.PROJECT) if installed is None else installed:
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        try:
            provides = _register(registry, point.load(), point.name)
            registry.plugins.append(PluginInfo(point.name, origin, provides))
        # Whatever a foreign module raises at import is its own fault: reported, never fatal.
        except (Exception, SystemExit) as error:
            registry.plugins.append(PluginInfo(point.name, origin, error=f"{type(error).__name__}: {error}"))
    for path in files:
        _register_file(registry, path)
    return registry


def _register_file(registry: Registry, path: Path) -> None:
    name = path.stem if path.is_file() else path.name
    try:
        module = import_file(path)
        if registry.events.is_registered(module):
            return  # It is installed too, and loaded from there.
        provides = _register(registry, module, name)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"Plugin {path} cannot be loaded: {type(error).__name__}: {error}") from error
    registry.plugins.append(PluginInfo(name, str(path), provides))


def import_file(path: Path) -> ModuleType:
    """Import a ``.py`` file, or a folder that is a package. Raises UsageError when it is missing."""
    source = path / "__init__.py" if path.is_dir() else path
    if not source.is_file():
        raise UsageError(f"Plugin '{path}' is not a Python file, nor a folder with an __init__.py.")
    name = path.name if path.is_dir() else path.stem
    search = [str(path)] if path.is_dir() else None
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise UsageError(f"Plugin '{path}' is not a Python file: its name must end in .py.")
    known = sys.modules.get(name)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() == source.resolve():
            return known
        raise UsageError(
            f"Plugin '{path}' has the name of a module that is already loaded ('{name}'). Rename the file."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _register(registry: Registry, module: ModuleType, name: str) -> tuple[str, ...]:
    """Register one plugin wholly or not at all; returns what it provides."""
    version = getattr(module, "API_VERSION", hookspecs.API_VERSION)
    if version != hookspecs.API_VERSION:
        raise PluginError(f"written for plugin API {version}, this is API {hookspecs.API_VERSION}")
    manager = registry.events
    manager.register(module, name)
    try:
        manager.check_pending()
        return _collect(registry, module, name)
    except Exception:
        manager.unregister(module)
        for kind in KINDS:
            registry.catalogue(kind).drop(name)
        raise


def _collect(registry: Registry, module: ModuleType, name: str) -> tuple[str, ...]:
    provides = []
    for caller in registry.events.get_hookcallers(module) or []:
        kind = caller.name.removeprefix("register_")
        if kind not in KINDS:
            continue
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not module:
                continue
            entries: object = implementation.function()
            if not isinstance(entries, Mapping) or not all(isinstance(e, Entry) for e in entries.values()):
                raise PluginError(f"{caller.name} must return a mapping from names to udabench.Entry(...)")
            for key, entry in entries.items():
                registry.catalogue(kind).add(key, entry, name)
                provides.append(f"{registry.catalogue(kind).kind} {key}")
    return tuple(provides)
