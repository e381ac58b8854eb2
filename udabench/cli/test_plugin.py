"""``udabench test-plugin``."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udabench.cli.options import plugin_option, set_option
from udabench.errors import PluginError, UsageError, unknown

if TYPE_CHECKING:
    from udabench.registry import Catalogue, Registry
    from udabench.testing import CheckResult

Tested = list[tuple[str, str]]
"""Kind (``method`` or ``data set``) and name."""


@click.command()
@click.argument("plugin", metavar="NAME|FILE")
@plugin_option
@set_option
@click.option("--quick", is_flag=True, help="Leave out whole runs (kill and resume, target labels, processes).")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep data and runs of the tests here.")
def test_plugin(
    plugin: str, plugins: tuple[Path, ...], overrides: tuple[str, ...], quick: bool, keep: Path | None
) -> None:
    """Run the conformance kit on a method or data set, or on all that a FILE (or folder) registers.

    \b
    udabench test-plugin t2sda
    udabench test-plugin entropy.py
    udabench test-plugin toycity
    """
    from udabench.resolve import parse_overrides

    values = parse_overrides(overrides)
    registry, tested = _find(plugin, plugins)
    failures = []
    with tempfile.TemporaryDirectory(prefix="udabench-") as temporary:
        for kind, name in tested:
            folder = (keep or Path(temporary)) / name
            failures += _show(f"{kind} {name}", _checks(kind, name, registry, folder, values, quick))
    if failures:
        raise PluginError("\n\n".join(failures))


def _find(plugin: str, plugins: tuple[Path, ...]) -> tuple[Registry, Tested]:
    """The registry and what is to be tested. Raises UsageError when there is no such name and no such file."""
    from udabench.testing import fake_registry

    registry = fake_registry(*map(plugin_path, plugins))
    if tested := _named(registry, plugin):
        return registry, tested
    if not Path(plugin).exists():
        known = [*registry.methods.names(), *registry.datasets.names()]
        raise unknown("method, data set or plugin file", plugin, known)
    path = plugin_path(Path(plugin)).resolve()
    registry = fake_registry(path, *map(plugin_path, plugins))
    tested = _registered_by(registry, path)
    if not tested:
        raise UsageError(f"Plugin '{plugin}' registers no method and no data set: there is nothing to test.")
    return registry, tested


def _catalogues(registry: Registry) -> tuple[Catalogue, ...]:
    return registry.methods, registry.datasets


def _named(registry: Registry, name: str) -> Tested:
    return [(catalogue.kind, name) for catalogue in _catalogues(registry) if name in catalogue]


def _registered_by(registry: Registry, path: Path) -> Tested:
    from udabench.testing.setup import plugin_name

    origin = plugin_name(path)
    return [(each.kind, known.name) for each in _catalogues(registry) for known in each if known.origin == origin]


def plugin_path(path: Path) -> Path:
    """The file or package behind a path: of a project's folder, the package that its entry point names."""
    project = path / "pyproject.toml"
    if not path.is_dir() or (path / "__init__.py").is_file() or not project.is_file():
        return path
    try:
        points = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"]["udabench"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{project} names no entry point of the group 'udabench'. Name the plugin's file.") from error
    found: list[Path] = [path / package for package in points.values() if (path / package).is_dir()]
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} plugins. Name the folder of one of them.")
    return found[0]


def _checks(
    kind: str, name: str, registry: Registry, folder: Path, values: Mapping[str, Any], quick: bool
) -> Iterator[CheckResult]:
    from udabench.testing import dataset_checks, method_checks

    if kind == "method":
        folder.mkdir(parents=True, exist_ok=True)
        return method_checks(name, registry, folder, values, whole_runs=not quick)
    return dataset_checks(name, registry, _roots(values))


def _roots(values: Mapping[str, Any]) -> dict[str, Path]:
    """``data.<name>`` and ``data.roots.<name>`` of the overrides."""
    roots = {}
    for key, value in values.items():
        if not key.startswith("data."):
            raise UsageError(f"Key '{key}': for a data set only its folder can be set, as data.<name>=DIR.")
        roots[key.removeprefix("data.").removeprefix("roots.")] = Path(str(value))
    return roots


def _show(title: str, results: Iterator[CheckResult]) -> list[str]:
    """Print a table row by row; returns the reasons of failures."""
    from rich.console import Console
    from rich.live import Live
    from rich.markup import escape
    from rich.table import Table

    marks = {"passed": "[green]passed[/]", "failed": "[bold red]failed[/]", "skipped": "[yellow]skipped[/]"}
    table = Table(title=title, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("check", "result", "found"):
        table.add_column(column, no_wrap=column != "found")
    failures = []
    console = Console(highlight=False)
    with Live(table, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for result in results:
            said = "see below" if result.failed else result.message
            table.add_row(result.name, marks[result.status], escape(said))
            live.refresh()
            if result.failed:
                failures.append(f"{title}, check '{result.name}': {result.message}")
    console.print()
    return failures
