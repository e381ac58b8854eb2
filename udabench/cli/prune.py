"""``udabench prune``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from udabench.errors import UsageError


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--checkpoints", is_flag=True, help="Also every checkpoint but the last, those of stage ends included.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def prune(runs: tuple[Path, ...], checkpoints: bool, yes: bool) -> None:
    """Remove the artefacts (pseudo-labels, translated images, ...) of finished RUNs.

    What is left can still be evaluated, shown, segment pictures and stand in a leaderboard. Another run can begin from
    its end, but no more from an earlier stage (--checkpoints) or from a stage whose artefacts it reads.
    """
    from rich.console import Console
    from rich.filesize import decimal

    from udabench.run.prune import find_prunable, prune_run

    console = Console(highlight=False, soft_wrap=True)
    found = [find_prunable(run, checkpoints) for run in runs]
    for each in found:
        console.print(f"[bold]{each.folder.path.name}[/]")
        for path, files, size in each.parts:
            console.print(f"  {path.relative_to(each.folder.path)}  {files} files, {decimal(size)}", markup=False)
        if not each.parts:
            console.print("  nothing to remove")
    if not any(each.parts for each in found):
        return
    total = sum(each.freed for each in found)
    if not yes and not _agreed(decimal(total)):
        console.print("Nothing was removed.")
        return
    for each in found:
        prune_run(each)
    console.print(f"{decimal(total)} freed.")


def _agreed(total: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("There is nobody to ask: say --yes.")
    return click.confirm(f"Remove {total}?", default=False)
