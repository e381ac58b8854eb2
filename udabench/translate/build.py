"""Translation engines by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from udabench.errors import PluginError, UsageError, unknown
from udabench.registry import Catalogue
from udabench.translate.base import Translator


def build_translator(catalogue: Catalogue, name: str, options: Mapping[str, Any]) -> Translator:
    """An engine with its options.

    Raises:
        UsageError: an unknown name or option, or a value that the engine refuses.
        PluginError: what is registered is no engine.
    """
    engine = catalogue.get(name)
    if not (isinstance(engine, type) and issubclass(engine, Translator)):
        raise PluginError(f"{engine!r} is registered as a translator but is no subclass of Translator.")
    _check_options(name, engine, options)
    try:
        return engine.create(options, partial(build_translator, catalogue))
    except TypeError as error:
        if lacking := _lacking(engine, options):
            named = ", ".join(f"{option}: ..." for option in lacking)
            raise UsageError(
                f"Translator '{name}' needs {' and '.join(lacking)}. Say it: translator_options={{{named}}}; "
                f"'udabench translate' takes --set {lacking[0]}=..."
            ) from None
        raise UsageError(f"Translator '{name}' does not take these options: {error}.") from error


def check_names(module: nn.Module, names: Sequence[str]) -> None:
    """Ask every engine in a method (or in an engine) whether it can translate images of these names.

    Raises DataError where one cannot.
    """
    for engine in module.modules():
        if isinstance(engine, Translator):
            engine.check(names)


def _check_options(name: str, engine: type[Translator], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(engine).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    for option in options:
        if option not in (known := [p.name for p in parameters]):
            raise unknown(f"option of translator {name}:", option, known)


def _lacking(engine: type[Translator], options: Mapping[str, Any]) -> list[str]:
    parameters = inspect.signature(engine).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
    return [name for name in needed if name not in options]
