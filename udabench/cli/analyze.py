"""``udabench analyze``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from udabench.cli.options import device_option, plugin_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from udabench.analysis.stored_labels import Found
    from udabench.analysis.walk import Finding

SEVERAL = Path("analysis")
"""Where several runs are written to."""


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--only", metavar="NAME,...", help="Analyses that are made. [all]")
@click.option(
    "--features", type=click.Choice(["last", "logits"]), default="last", show_default=True,
    help="The last map of the encoder, or the logits.",
)  # fmt: skip
@click.option("--predictor", metavar="NAME", help="student or teacher. [the paper's; for pseudo-labels the teacher]")
@click.option("--split", metavar="NAME", help="Split of the target. [the one that is evaluated]")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Images of each split. [all; 500 of a training split]"
)
@click.option("--set", "overrides", multiple=True, metavar="ANALYSIS.KEY=VALUE", help="A key of an analysis.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="[<run>/analysis; of several ./analysis]")
@click.option("--pseudo-labels", "stored", is_flag=True,
    help="Look at the labels that the run has stored instead: a table and pictures of each version.",
)  # fmt: skip
@plugin_option
@device_option
def analyze(
    runs: tuple[Path, ...],
    only: str | None,
    features: Literal["last", "logits"],
    predictor: str | None,
    split: str | None,
    limit: int | None,
    overrides: tuple[str, ...],
    out: Path | None,
    stored: bool,
    plugins: tuple[Path, ...],
    device: str | None,
) -> None:
    """Look at the features, the certainty and the pseudo-labels of run folders or checkpoints, side by side.

    \b
    ccd, pdd        how well classes are told apart in feature space (T2S-DA, Eq 14, 15); --set ccd.divisor=literal
    similarity      class means of the source beside those of the target (T2S-DA, Fig. 1), and IoU
    tsne            pixels of both domains in a plane (needs udabench[analysis]); --set tsne.per_class=60
    attention       what single pixels are similar to, by their logits and by SAM's module (SAM, Fig. 3 and E.4);
                    --set attention.classes=[car,pole]
    entropy         of correct and of incorrect pixels (SAM, section 5.7)
    pseudo-labels   density and accuracy by class, on the target's training split; --set pseudo-labels.threshold=0.968
    calibration     reliability diagram and calibration error; --set calibration.bins=15

    The target's labels are used here, by the analysis. A CSV, a PNG and a JSON file (how it was made) of each.
    """
    from rich.console import Console

    from udabench.analysis.report import write_report
    from udabench.analysis.study import Request, open_study
    from udabench.analysis.walk import carry_out
    from udabench.resolve import parse_overrides

    if stored:
        unused = {
            "--only": only, "--features": features != "last", "--predictor": predictor, "--split": split,
            "--set": overrides, "--device": device,
        }  # fmt: skip
        _look_at_stored(runs, out, limit, plugins, unused)
        return
    console = Console(highlight=False, soft_wrap=True)
    names = [name.strip() for name in only.split(",") if name.strip()] if only is not None else None
    study = open_study(
        Request(
            runs, names, parse_overrides(overrides), features, predictor, split, limit, device or "auto", plugins
        )
    )  # fmt: skip
    for reason in study.left_out.values():
        console.print(f"[yellow]left out[/] {reason}")
    with _progress() as progress:
        findings = carry_out(study, progress)
    folder = out or (study.runs[0].trained.folder / "analysis" if len(runs) == 1 else SEVERAL)
    write_report(study, findings, folder)
    _print(console, findings)
    console.print(f"tables and pictures  {folder}", markup=False)


def _look_at_stored(
    runs: Sequence[Path], out: Path | None, limit: int | None, plugins: tuple[Path, ...], unused: Mapping[str, object]
) -> None:
    """A table and a folder of pictures for each run."""
    from rich.console import Console

    from udabench.analysis.stored_labels import look_at, write_found
    from udabench.errors import UsageError

    given = [option for option, value in unused.items() if value]
    if given:
        raise UsageError(f"{given[0]} is for analyses of a network; --pseudo-labels asks none. Leave one of them out.")
    console = Console(highlight=False, soft_wrap=True)
    for run in runs:
        with _progress() as progress:
            found = look_at(run, plugins, limit, progress)
        folder = run / "analysis" if out is None else out if len(runs) == 1 else out / run.name
        write_found(found, folder)
        console.print(_stored_table(found))
        for one in found:
            if one.foreign:
                names = ", ".join(one.foreign[:3])
                console.print(
                    f"[yellow]warning:[/] {one.version.folder}: of no training image: {names}", soft_wrap=True
                )
        console.print(f"table and pictures  {folder}", markup=False)


def _stored_table(found: Sequence[Found]) -> Table:
    from rich.table import Table

    table = Table(
        title="stored pseudo-labels", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    table.add_column("")
    for column in ("images", "density", "accuracy", "mIoU"):
        table.add_column(column, justify="right")
    for one in found:
        scores = one.tally.scores()
        values = [float(scores[name]) for name in ("density", "accuracy", "miou")]
        table.add_row(one.version.title, str(one.images), *map(_number, values))
    return table


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(task, description=what, completed=done, total=total)


def _print(console: Console, findings: Sequence[Finding]) -> None:
    """A table for each analysis, a column for each run."""
    for finding in findings:
        console.print(_table(finding))
        for remark in finding.analysis.remarks(finding.tables):
            console.print(remark, markup=False)


def _table(finding: Finding) -> Table:
    from rich.table import Table
    from rich.text import Text

    from udabench.analysis.base import OVERALL

    summary = finding.analysis.summary(finding.tables)
    table = Table(title=finding.name, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for column in summary.columns:
        table.add_column(Text(str(column)), justify="right")
    for name, values in summary.iterrows():
        style = "bold" if name in OVERALL else None
        table.add_row(Text(str(name)), *(_number(float(value)) for value in values), style=style)
    return table


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.4g}"
