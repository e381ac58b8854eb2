"""Tables as text: Markdown with footnotes, or a terminal's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from udabench.leaderboard.table import Line, Table

if TYPE_CHECKING:
    from rich.console import RenderableType


class Footnotes:
    """Numbers sentences in the order of their first use on a page."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def mark(self, sentence: str) -> str:
        """``[^1]``; the same sentence keeps its number."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)
        return f"[^{self.sentences.index(sentence) + 1}]"

    def markdown(self) -> str:
        """The notes themselves, one a line."""
        return "\n".join(f"[^{i}]: {escape(sentence)}" for i, sentence in enumerate(self.sentences, 1))


def escape(text: str) -> str:
    """Plain text as Markdown shows it."""
    for sign in ("\\", "|", "*", "`", "<", "[^"):
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def to_markdown(table: Table, footnotes: Footnotes | None = None) -> str:
    """A pipe table. Without ``footnotes`` the notes stand below it."""
    notes = footnotes or Footnotes()
    rows = [_cells(line, notes) for line in table.lines]
    aligned = ["right" if column.number else "left" for column in table.columns]
    headers = [escape(column.name) for column in table.columns]
    text = tabulate(rows, headers, tablefmt="pipe", colalign=aligned, disable_numparse=True)
    below = [table.caption] if table.caption else []
    if footnotes is None and notes.sentences:
        below.append(notes.markdown())
    return "\n\n".join([text, *below])


def _cells(line: Line, notes: Footnotes) -> list[str]:
    first, *rest = map(escape, line.cells)
    return [first + "".join(map(notes.mark, line.notes)), *rest]


def to_rich(table: Table) -> RenderableType:
    """For a terminal: the table, its caption and its notes."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(table.title), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
    for column in table.columns:
        drawn.add_column(Text(column.name), justify="right" if column.number else "left")
    notes = Footnotes()
    for line in table.lines:
        first, *rest = line.cells
        marks = "".join(notes.mark(note).replace("^", "") for note in line.notes)
        drawn.add_row(Text(first + marks), *map(Text, rest))
    below = [table.caption, *(f"[{i}] {sentence}" for i, sentence in enumerate(notes.sentences, 1))]
    return Group(drawn, *(Text(text, style="dim") for text in below if text))
