"""Similarity of the class means of source and target (T2S-DA: journal Fig. 1, preprint Fig. 2), beside the IoU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from udabench.analysis.base import Analysis, Place, Seen, Subject
from udabench.analysis.figures import Tables, bars_width, class_colors, draw_panels, new_figure
from udabench.analysis.means import ClassSums, labelled_pixels, mean_over_known
from udabench.config import Section
from udabench.evaluate.confusion import confusion_matrix
from udabench.evaluate.metrics import Values, iou, mean_iou
from udabench.labels import LabelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

TO = "to "
"""Before a target class' name: the column of cosines to its mean."""


class Similarity(Analysis):
    """Cosines between the mean of each class in the source and of each class in the target."""

    rounds: ClassVar[tuple[tuple[Place, ...], ...]] = (("source", "target"),)
    bars: ClassVar[Mapping[str, str]] = {"similarity": "cosine, source to target", "iou": "IoU on the target"}

    def __init__(self, config: Section, subject: Subject) -> None:
        super().__init__(config, subject)
        self.sums = {"source": ClassSums(self.classes), "target": ClassSums(self.classes)}
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64)

    def look(self, seen: Seen, turn: int) -> None:
        for pixels, label in labelled_pixels(seen.features, seen.grid, self.classes):
            self.sums[seen.place].add(pixels, label)
        if seen.place == "target" and seen.truth is not None:
            self.confusion += confusion_matrix(seen.truth, seen.claim.label, self.classes).cpu()

    def table(self) -> pd.DataFrame:
        source, target = (normalize(self.sums[place].means().cpu(), dim=1) for place in ("source", "target"))
        matrix = source @ target.T
        same = matrix.diagonal()
        score = torch.from_numpy(iou(self.confusion.numpy()))
        toward = {f"{TO}{name}": column for name, column in zip(self.subject.classes.names, matrix.T, strict=True)}
        last = {"similarity": mean_over_known(same), "iou": mean_iou(score.numpy(), range(self.classes))}
        return self.by_class("mean", {"similarity": same, "iou": score, **toward}, last)

    @classmethod
    def draw(cls, tables: Tables, classes: LabelSpace) -> Figure:
        columns = max(2, min(len(tables), 3))
        rows = -(-len(tables) // columns)
        width = bars_width(classes)
        # A matrix is square, with room for names beside it.
        below = 0.92 * rows * min(width / columns, 7.5)
        figure = new_figure(width, 6.0 + below)
        parts: Any = figure.subfigures(2, 1, height_ratios=[6.0, below])
        upper, lower = parts
        draw_panels(upper, tables, classes, cls.bars)
        heat_maps(lower, lower.subplots(rows, columns, squeeze=False).flat, tables, classes)
        return figure


def heat_maps(figure: SubFigure, axes: Iterable[Axes], tables: Tables, classes: LabelSpace) -> None:
    """A matrix for each run, all in one scale of colours; axes that are left are switched off."""
    columns = [f"{TO}{name}" for name in classes.names]
    matrices = {run: table.set_index("class").loc[list(classes.names), columns] for run, table in tables.items()}
    lowest = np.nanmin([0.0, *(value for matrix in matrices.values() for value in matrix.to_numpy(float).flat)])
    every = list(axes)
    for axis, (run, matrix) in zip(every, matrices.items(), strict=False):
        picture = heat(axis, matrix.to_numpy(float), classes, lowest)
        axis.set_title(run, fontsize=10)
    figure.colorbar(picture, ax=every[: len(matrices)], shrink=0.75, label="cosine of class means")
    for axis in every[len(matrices) :]:
        axis.set_axis_off()


def heat(axis: Axes, matrix: Values, classes: LabelSpace, lowest: float) -> AxesImage:
    """One matrix of cosines: source classes in rows, target classes in columns."""
    picture = axis.imshow(matrix, cmap="viridis", vmin=lowest, vmax=1)
    places = range(len(classes))
    axis.set_xticks(places, classes.names, rotation=90, fontsize=7)
    axis.set_yticks(places, classes.names, fontsize=7)
    for label, color in zip(axis.get_yticklabels(), class_colors(classes), strict=True):
        label.set_bbox({"facecolor": (*color, 0.35), "edgecolor": "none", "pad": 1})
    axis.set_xlabel("target")
    axis.set_ylabel("source")
    return picture
