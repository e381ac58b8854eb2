"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from udabench.registry import Registry

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_RUNS = Path("runs")


def plugin_option(command: Command) -> Command:
    """``--plugin FILE``, any number of times."""
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A plugin in a file or folder; may be repeated.",
    )(command)


def set_option(command: Command) -> Command:
    """``--set key=value``, any number of times."""
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value; may be repeated."
    )(command)


def runs_option(command: Command) -> Command:
    """``--runs DIR``."""
    return click.option(
        "--runs", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_RUNS, show_default=True,
        metavar="DIR", help="Folder of the run folders.",
    )(command)  # fmt: skip


def device_option(command: Command) -> Command:
    """``--device``."""
    return click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1.")(command)


def load(plugins: tuple[Path, ...]) -> Registry:
    """The registry with the given local plugins."""
    from udabench.plugins import load_registry

    return load_registry(plugins)
