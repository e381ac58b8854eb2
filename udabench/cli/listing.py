"""``methods``, ``presets``, ``datasets``, ``networks``, ``translators``, ``plugins``: what is there, and whence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from udabench.cli.options import load, plugin_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@click.command()
@plugin_option
def methods(plugins: tuple[Path, ...]) -> None:
    """List the methods."""
    _print("Methods", plugins, ("methods",))


@click.command()
@plugin_option
def datasets(plugins: tuple[Path, ...]) -> None:
    """List the data sets."""
    _print("Data sets", plugins, ("datasets",))


@click.command()
@plugin_option
def networks(plugins: tuple[Path, ...]) -> None:
    """List the networks: any <backbone>-<head>, and whole ones."""
    _print("Networks (any <backbone>-<head>, or a whole one)", plugins, ("backbones", "heads", "networks"))


@click.command()
@plugin_option
def translators(plugins: tuple[Path, ...]) -> None:
    """List the image translators."""
    _print("Translators", plugins, ("translators",))


@click.command()
@plugin_option
def plugins(plugins: tuple[Path, ...]) -> None:
    """List the plugins, broken ones with their errors."""
    from rich.markup import escape

    table = _table("Plugins", "name", "origin", "provides")
    for info in load(plugins).plugins:
        said = f"[red]broken: {escape(info.error)}[/]" if info.error else escape(", ".join(info.provides))
        table.add_row(info.name, escape(info.origin), said)
    _console().print(table)


@click.command()
@click.argument("method")
@click.option("--task", metavar="NAME", help="Rows of this task only (gta5-cityscapes).")
@click.option("--format", "style", type=click.Choice(["text", "md", "csv"]), default="text", show_default=True)
@plugin_option
def presets(method: str, task: str | None, style: str, plugins: tuple[Path, ...]) -> None:
    """List the presets of METHOD: the rows of the papers, with their figures by task.

    null: no figure is published; the notes say why. With --task, rows whose figure is lost are left out.
    """
    from udabench.cli.preset_table import print_presets
    from udabench.presets import presets_of

    described = load(plugins).methods.describe(method)
    print_presets(described.name, list(presets_of(described).values()), task, style)


def _print(title: str, files: tuple[Path, ...], kinds: tuple[str, ...]) -> None:
    registry = load(files)
    origins = {info.name: info.origin for info in registry.plugins}
    table = _table(title, "name", *(["kind"] if len(kinds) > 1 else []), "origin", "about")
    for kind in kinds:
        catalogue = registry.catalogue(kind)
        for known in catalogue:
            kind_cell = [catalogue.kind] if len(kinds) > 1 else []
            table.add_row(known.name, *kind_cell, f"{known.origin} ({origins[known.origin]})", known.entry.summary)
    console = _console()
    console.print(table)
    for info in registry.plugins:
        if info.error:
            console.print(f"plugin {info.name} is broken: {info.error}", style="red", markup=False)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column == "name")
    return table


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
