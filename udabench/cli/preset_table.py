"""A method's presets as a table: name, what it is, the paper's table and row, the published figures by task."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

from udabench.errors import unknown
from udabench.leaderboard.render import to_markdown
from udabench.leaderboard.table import Column, Line, Table
from udabench.presets import Preset

NULL = "null"


def print_presets(method: str, presets: Sequence[Preset], task: str | None, style: str) -> None:
    """``style``: ``text``, ``md`` or ``csv``. Raises UsageError for a task that no preset has figures of."""
    table = preset_table(method, presets, task)
    match style:
        case "csv":
            _write_csv(table)
        case "md":
            print(to_markdown(table))
        case _:
            _print_text(table)


def preset_table(method: str, presets: Sequence[Preset], task: str | None = None) -> Table:
    """A line a preset, a column a task; the reason for a figure that is null is a note."""
    tasks = list(dict.fromkeys(name for preset in presets for name in preset.published or ()))
    if task is not None and task not in tasks:
        raise unknown(f"task with published figures of {method}", task, tasks)
    shown = [preset for preset in presets if task is None or task in (preset.published or ())]
    columns = [Column(head, number=False) for head in ("preset", "about", "table", *([task] if task else tasks))]
    lines = (_line(preset, [task] if task else tasks) for preset in sorted(shown, key=lambda preset: preset.name))
    return Table(f"Presets of {method}", tuple(columns), tuple(lines))


def _line(preset: Preset, tasks: Sequence[str]) -> Line:
    notes = (preset.reason,) if preset.reason else ()
    return Line((preset.name, preset.about, preset.table, *(_figures(preset, task) for task in tasks)), notes)


def _figures(preset: Preset, task: str) -> str:
    found = (preset.published or {}).get(task)
    return NULL if found is None else ", ".join(f"{metric} {figure}" for metric, figure in found.items())


def _write_csv(table: Table) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*(column.name for column in table.columns), "reason"])
    writer.writerows([*line.cells, " ".join(line.notes)] for line in table.lines)


def _print_text(table: Table) -> None:
    """Two columns, whatever the terminal's width: the name, and beside it the figures, what it is, its table."""
    from rich.console import Console, Group
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    tasks = [column.name for column in table.columns[3:]]
    for line in table.lines:
        name, about, row, *cells = line.cells
        figures = [f"{task} {cell}" for task, cell in zip(tasks, cells, strict=True) if cell != NULL]
        reason = f"{NULL}: {' '.join(line.notes) or 'no row of a paper'}"
        said = Text("; ".join(figures) or reason, style="green" if figures else "yellow")
        below = [Text(about), *([Text(row, style="dim")] if row else []), Text()]
        grid.add_row(Text(name, style="bold"), Group(said, *below))
    console = Console(highlight=False)
    console.print(Text(table.title, style="bold"), "", sep="\n")
    console.print(grid)
