"""A table as a value: what renderers (Markdown, terminal) are given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A heading; numbers are aligned to the right."""

    name: str
    number: bool = True


@dataclass(frozen=True)
class Line:
    """One row: plain text cells, and sentences that belong to it as footnotes."""

    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Title, columns, rows, and a sentence below."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    caption: str = ""

    def __post_init__(self) -> None:
        if any(len(line.cells) != len(self.columns) for line in self.lines):
            raise ValueError(f"table '{self.title}': a row has another number of cells than there are columns")
