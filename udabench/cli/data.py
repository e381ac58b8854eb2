"""``udabench data``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from udabench.cli.options import Command, load, plugin_option, set_option

if TYPE_CHECKING:
    from udabench.dataset import Dataset
    from udabench.registry import Registry


@click.group()
def data() -> None:
    """Check, prepare and look at data sets."""


def _split_option(command: Command) -> Command:
    return click.option("--split", default="train", show_default=True, help="Which split.")(command)


@data.command()
@click.argument("name")
@_split_option
@set_option
@plugin_option
def doctor(name: str, split: str, overrides: tuple[str, ...], plugins: tuple[Path, ...]) -> None:
    """Read every file of data set NAME: counts, missing pairs, broken files, unexpected ids, sizes, class shares."""
    from rich.console import Console

    from udabench.data.doctor import diagnose
    from udabench.errors import DataError

    dataset, _, _ = _open(name, split, overrides, plugins)
    with _progress(f"Reading {name} {split}") as told:
        report = diagnose(dataset, progress=told)
    Console(highlight=False).print(report)
    if not report.healthy:
        raise DataError(f"{name} {split} has problems; they are listed above.")


@data.command()
@click.argument("name")
@_split_option
@click.option("--output", type=click.Path(path_type=Path), metavar="PNG", help="[<name>-<split>.png]")
@click.option("--count", default=6, show_default=True, type=click.IntRange(1, 64), help="Samples, evenly spaced.")
@set_option
@plugin_option
def show(
    name: str, split: str, output: Path | None, count: int, overrides: tuple[str, ...], plugins: tuple[Path, ...]
) -> None:
    """Write a picture grid of data set NAME: image, label overlay, class legend."""
    from udabench.data.show import grid

    dataset, _, _ = _open(name, split, overrides, plugins)
    path = output or Path(f"{name}-{split}.png")
    grid(dataset, count).save(path, format="PNG")
    click.echo(path)


@data.command()
@click.argument("name")
@_split_option
@click.option("--size", metavar="WxH", help="Size of the stored samples. [the data set's usual training size]")
@click.option("--store", type=click.Path(path_type=Path), metavar="DIR", help="Folder of prepared data sets.")
@click.option("--format", "style", type=click.Choice(["raw", "jpeg"]), default="raw", show_default=True)
@click.option("--limit", default=20.0, show_default=True, metavar="GB", help="Ask when the store is larger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@set_option
@plugin_option
def prepare(
    name: str,
    split: str,
    size: str | None,
    store: Path | None,
    style: str,
    limit: float,
    yes: bool,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
) -> None:
    """Decode data set NAME once into a memory-mapped store (optional); goes on where it was killed."""
    from udabench.data.store import estimate_bytes
    from udabench.data.store import prepare as prepare_store
    from udabench.errors import UsageError
    from udabench.size import Size

    dataset, _, folder = _open(name, split, overrides, plugins)
    try:
        wanted = Size.parse(size) if size else dataset.train_size
    except ValueError as error:
        raise UsageError(f"--size: {error}") from None
    needed = estimate_bytes(dataset, wanted, style)  # type: ignore[arg-type]
    click.echo(f"{len(dataset)} samples at {wanted}: {needed / 1e9:.2f} GB")
    if needed > limit * 1e9 and not yes:
        click.confirm(f"That is more than {limit:g} GB. Go on?", abort=True)
    with _progress(f"Preparing {name} {split}") as told:
        prepared = prepare_store(dataset, wanted, store or folder, style, progress=told)  # type: ignore[arg-type]
    click.echo(prepared.path)


def _open(
    name: str, split: str, overrides: tuple[str, ...], plugins: tuple[Path, ...]
) -> tuple[Dataset, Registry, Path | None]:
    """The data set, opened with what the user's file and ``--set data...`` say of folders and options."""
    from udabench.config import MethodConfig
    from udabench.data.locate import open_dataset
    from udabench.resolve import Layer, parse_overrides, resolve, user_layer

    registry = load(plugins)
    layers = [user_layer(), Layer("command line", parse_overrides(overrides))]
    config = resolve(MethodConfig, layers, registry.datasets.names()).config.data
    return open_dataset(registry, name, split, config.roots, config.source_options), registry, config.store


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a ``(done, total)`` callback."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
