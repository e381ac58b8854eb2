"""What pictures of analyses share: bars by class, colours of runs and of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from udabench.labels import LabelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Tables = Mapping[str, pd.DataFrame]
"""Title of a run -> its table, in the order of the command."""
RUN_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222222")
"""Told apart by colour-blind readers (Paul Tol's bright scheme)."""
DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; no display is needed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def class_colors(classes: LabelSpace) -> list[tuple[float, ...]]:
    """The palette in [0, 1]."""
    return [tuple(value / 255 for value in color) for color in classes.palette]


def run_color(index: int) -> str:
    """The colour of the run of this number."""
    return RUN_COLORS[index % len(RUN_COLORS)]


def draw_bars(tables: Tables, classes: LabelSpace, columns: Mapping[str, str]) -> Figure:
    """A panel for each column of tables by class: bars of all runs side by side."""
    figure = new_figure(bars_width(classes), 0.6 + 3.1 * len(columns))
    draw_panels(figure, tables, classes, columns)
    return figure


def bars_width(classes: LabelSpace) -> float:
    """Inches that bars by class need."""
    return max(7.0, 0.62 * len(classes) + 2)


def draw_panels(figure: Figure | SubFigure, tables: Tables, classes: LabelSpace, columns: Mapping[str, str]) -> None:
    """The panels of :func:`draw_bars` in a figure or a part of one."""
    axes = figure.subplots(len(columns), 1, squeeze=False)[:, 0]
    for axis, (column, title) in zip(axes, columns.items(), strict=True):
        bars(axis, tables, classes, column)
        axis.set_ylabel(title)
    if len(tables) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)


def bars(axis: Axes, tables: Tables, classes: LabelSpace, column: str) -> None:
    """Bars by class; of several runs in the runs' colours, of one in the classes'."""
    width = 0.82 / len(tables)
    for index, (run, table) in enumerate(tables.items()):
        values = table.set_index("class")[column].reindex(classes.names).to_numpy(float)
        place = np.arange(len(classes)) + (index - (len(tables) - 1) / 2) * width
        color = run_color(index) if len(tables) > 1 else class_colors(classes)
        axis.bar(place, np.where(np.isfinite(values), values, 0), width, color=color, label=run)
        for x in place[~np.isfinite(values)]:
            axis.text(x, 0, "–", ha="center", va="bottom", color="grey", fontsize=8)
    if not any(table[column].fillna(0).any() for table in tables.values()):
        axis.set_ylim(0, 1)
    name_classes(axis, classes)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)


def name_classes(axis: Axes, classes: LabelSpace) -> None:
    """Class names below, each with a patch of its colour."""
    places = range(len(classes))
    below = axis.get_xaxis_transform()
    axis.scatter(
        places, [-0.025] * len(classes), s=42, c=class_colors(classes), marker="s", transform=below, clip_on=False,
        zorder=3,
    )  # fmt: skip
    axis.set_xticks(places, classes.names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axis.tick_params(axis="x", length=0, pad=9)
    axis.set_xlim(-0.6, len(classes) - 0.4)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def panels(count: int, width: float = 4.4, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """A figure with a square panel for each run."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = new_figure(width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]
