"""The paper's Table 4 for a run: density and accuracy of the four kinds of labels, from one refresh to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from udabench.engine.folder import RunFolder
from udabench.engine.metrics import read_metrics
from udabench_bicl.names import KINDS, STATIC

Entry = Mapping[str, Any]
Score = tuple[float | None, float | None]
"""Density and accuracy; None where nothing was measured."""


def print_table(run: str) -> None:
    """Of a run folder, where it holds what this method logs."""
    periods = split_periods(read_metrics(RunFolder(Path(run)).metrics))
    if periods:
        Console(highlight=False, soft_wrap=True).print(make_table(periods))


def split_periods(entries: Iterable[Entry]) -> dict[int, list[Entry]]:
    """The logged steps of the adaptation by the refresh before them: step of the run -> entries."""
    periods: dict[int, list[Entry]] = {}
    for entry in entries:
        if f"probe/{STATIC}/density" in entry["values"]:
            periods[entry["iteration"]] = []
        # A step may be logged at the number of the refresh itself.
        if periods and all(f"probe/{kind}/density" in entry["values"] for kind in KINDS):
            periods[max(periods)].append(entry)
    return {step: found for step, found in periods.items() if found}


def score(entries: Sequence[Entry], kind: str) -> Score:
    """Over the crops of all entries, which have one size: the accuracy is of all labelled pixels together."""
    values = [entry["values"] for entry in entries]
    density, accuracy = f"probe/{kind}/density", f"probe/{kind}/accuracy"
    right = [each[density] * each[accuracy] for each in values if accuracy in each]
    known = sum(each[density] for each in values if accuracy in each)
    return sum(each[density] for each in values) / len(values), sum(right) / known if known else None


def make_table(periods: Mapping[int, Sequence[Entry]]) -> Table:
    """A row for each refresh."""
    title = "Target's pseudo-labels from refresh to refresh: % of pixels labelled / % of these right"
    table = Table(title=title, box=None, header_style="bold", padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("from step", justify="right")
    for kind in KINDS:
        table.add_column(kind, justify="right")
    for step, entries in sorted(periods.items()):
        table.add_row(str(step), *(_cell(score(entries, kind)) for kind in KINDS))
    return table


def _cell(found: Score) -> str:
    return " / ".join("-" if value is None else f"{100 * value:.1f}" for value in found)
