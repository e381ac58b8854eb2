"""``udabench leaderboard``."""

from __future__ import annotations

from pathlib import Path

import click

from udabench.cli.options import load, plugin_option

DEFAULT = Path("leaderboards")


@click.group()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT, show_default=True, metavar="DIR",
    help="Where results and pages lie.",
)  # fmt: skip
@click.pass_context
def leaderboard(context: click.Context, folder: Path) -> None:
    """Build, check or add to the leaderboards: pages generated from stored records alone."""
    context.obj = folder


@leaderboard.command()
@click.pass_obj
def build(folder: Path) -> None:
    """Write every page from the records under DIR/results."""
    from udabench.leaderboard import build as build_pages

    for page in build_pages(folder):
        click.echo(page)


@leaderboard.command()
@click.pass_obj
def check(folder: Path) -> None:
    """Fail when a page is not what its records give."""
    from udabench.errors import UserError
    from udabench.leaderboard import check as stale_pages

    stale = stale_pages(folder)
    if stale:
        pages = "\n".join(f"  {page}" for page in stale)
        raise UserError(f"Pages that are not what their records give:\n{pages}\nRun: udabench leaderboard build")
    click.echo("all pages are up to date")


@leaderboard.command()
@click.argument("reporter")
@plugin_option
@click.pass_obj
def report(folder: Path, reporter: str, plugins: tuple[Path, ...]) -> None:
    """Print all records in the format of REPORTER, a plugin."""
    from udabench.leaderboard import read_results

    write = load(plugins).reporters.get(reporter)
    click.echo(write([record for records in read_results(folder).values() for record in records]))


@leaderboard.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_obj
def add(folder: Path, runs: tuple[Path, ...]) -> None:
    """Copy the records of RUNS in. Build the pages afterwards."""
    from udabench.leaderboard import add as add_record

    for run in runs:
        click.echo(add_record(run, folder))
