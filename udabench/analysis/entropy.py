"""Is a network less certain where it is wrong? Entropy of correct and of incorrect pixels (SAM paper, section 5.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from udabench.analysis.base import Analysis, Seen, Subject
from udabench.analysis.figures import Tables, new_figure, run_color
from udabench.config import Section
from udabench.evaluate.entropy import EntropyProbe
from udabench.labels import LabelSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Entropy(Analysis):
    """Mean over a group's pixels of an image, then over the images that have any."""

    def __init__(self, config: Section, subject: Subject) -> None:
        super().__init__(config, subject)
        self.probe = EntropyProbe()

    def look(self, seen: Seen, turn: int) -> None:
        if seen.truth is not None:
            self.probe.add(seen.claim.entropy, seen.claim.label, seen.truth)

    def table(self) -> pd.DataFrame:
        found = self.probe.result()
        return pd.DataFrame(
            {
                "pixels": ["correct", "incorrect"],
                "entropy": [found.correct, found.incorrect],
                "images": [found.images_correct, found.images_incorrect],
            }
        )

    @classmethod
    def draw(cls, tables: Tables, classes: LabelSpace) -> Figure:
        figure = new_figure(max(4.5, 1.4 * len(tables) + 1.5), 3.6)
        axis = figure.subplots()
        for index, table in enumerate(tables.values()):
            for offset, (_, row) in zip((-0.19, 0.19), table.iterrows(), strict=True):
                hatch = None if row["pixels"] == "correct" else "//"
                drawn = axis.bar(index + offset, row["entropy"], 0.36, color=run_color(index), hatch=hatch, ec="white")
                axis.bar_label(drawn, labels=[f"{row['pixels']}\n{row['entropy']:.3f}"], fontsize=8, padding=2)
        axis.set_xticks(range(len(tables)), list(tables), fontsize=9)
        axis.set_xlim(-0.6, len(tables) - 0.4)
        axis.margins(y=0.2)
        axis.set_ylabel("entropy of a pixel (nats)")
        axis.spines[["top", "right"]].set_visible(False)
        return figure

    @classmethod
    def summary(cls, tables: Tables) -> pd.DataFrame:
        return pd.DataFrame({run: table.set_index("pixels")["entropy"] for run, table in tables.items()})
