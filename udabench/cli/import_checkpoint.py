"""``udabench import-checkpoint``."""

from __future__ import annotations

from pathlib import Path

import click

from udabench.cli.options import load, plugin_option, runs_option, set_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the run folder.")
@click.option("--source", "-s", default="gta5", show_default=True, help="Labelled data set that it was trained on.")
@click.option("--target", "-t", default="cityscapes", show_default=True, help="Data set that it was adapted to.")
@click.option("--method", "-m", default="daformer", show_default=True, help="Method that it was trained with.")
@click.option("--preset", help="A row of the method's paper.")
@set_option
@plugin_option
@runs_option
def import_checkpoint(
    file: Path,
    name: str | None,
    source: str,
    target: str,
    method: str,
    preset: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    runs: Path,
) -> None:
    """Make a run folder of FILE, a checkpoint of DAFormer's, HRDA's or MIC's code, to evaluate it or predict with it.

    \b
    udabench import-checkpoint iter_40000_relevant.pth --name hrda
    udabench import-checkpoint latest.pth --method mic --preset mic-paper --source synthia
    """
    from rich.console import Console

    from udabench.resolve import parse_overrides
    from udabench.run.imported import import_checkpoint as write
    from udabench.run.plan import Request

    request = Request(method, source, target, preset, overrides=parse_overrides(overrides))
    imported = write(file, load(plugins), request, runs, name)
    published, report = imported.published, imported.report
    console = Console(highlight=False, soft_wrap=True)
    held = "student and teacher" if published.teacher is not None else "the student (the file has no teacher)"
    console.print(f"network     {published.network.name}, {published.network.classes} outputs: {held}", markup=False)
    console.print(f"weights     {report.matched} values, all that the network has", markup=False)
    if report.unexpected:
        console.print(f"left out    {', '.join(report.unexpected)}", markup=False)
    console.print(f"run folder  {imported.folder}", markup=False)
    console.print(f"next        udabench evaluate {imported.folder}", markup=False)
