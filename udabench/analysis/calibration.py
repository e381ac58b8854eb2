"""Whether a confidence is the chance to be right: reliability diagram and expected calibration error.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from udabench.analysis.base import Analysis, Seen, Subject
from udabench.analysis.figures import Tables, panels, run_color
from udabench.config import Section, setting
from udabench.labels import IGNORE, LabelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class CalibrationConfig(Section):
    bins: int = setting(15, "bins of confidence, equally wide", origin="Guo et al., ICML 2017", ge=2, le=1000)


class Calibration(Analysis):
    """Pixels by the confidence of their most probable class: how many, how sure, how many right."""

    Config = CalibrationConfig
    config: CalibrationConfig

    def __init__(self, config: CalibrationConfig, subject: Subject) -> None:
        super().__init__(config, subject)
        self.sums = torch.zeros(3, config.bins, dtype=torch.float64)

    def look(self, seen: Seen, turn: int) -> None:
        if seen.truth is not None:
            known = seen.truth != IGNORE
            self.add(seen.claim.confidence[known], (seen.claim.label == seen.truth)[known])

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """n confidences, and whether each was right: n bool. A bin holds its lower edge, the last one also 1."""
        bins = self.config.bins
        index = (confidence * bins).long().clamp(0, bins - 1)
        weights = (None, confidence.double(), right.double())
        counted = [torch.bincount(index, weight, minlength=bins).double() for weight in weights]
        self.sums += torch.stack(counted).cpu()

    def table(self) -> pd.DataFrame:
        edges = np.linspace(0, 1, self.config.bins + 1)
        pixels, confidence, accuracy = self.sums.numpy()
        with np.errstate(invalid="ignore"):
            means = {"confidence": confidence / pixels, "accuracy": accuracy / pixels}
        return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "pixels": pixels.astype(np.int64), **means})

    def notes(self) -> Mapping[str, Any]:
        return {"calibration error": calibration_error(self.table())} if self.sums.any() else {}

    @classmethod
    def draw(cls, tables: Tables, classes: LabelSpace) -> Figure:
        figure, axes = panels(len(tables), width=4.0)
        for index, (axis, (run, table)) in enumerate(zip(axes, tables.items(), strict=True)):
            diagram(axis, table, run_color(index))
            axis.set_title(f"{run}\ncalibration error {100 * calibration_error(table):.2f} %", fontsize=10)
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
        )
        return figure

    @classmethod
    def summary(cls, tables: Tables) -> pd.DataFrame:
        values = {run: [calibration_error(table), *_overall(table)] for run, table in tables.items()}
        return pd.DataFrame(values, index=["calibration error", "mean confidence", "accuracy"])


def calibration_error(table: pd.DataFrame) -> float:
    """ECE: the mean over pixels of |accuracy - confidence| of their bin; NaN without pixels."""
    gaps = (table["accuracy"] - table["confidence"]).abs().fillna(0)
    return float((gaps * table["pixels"]).sum() / total) if (total := table["pixels"].sum()) else float("nan")


def _overall(table: pd.DataFrame) -> list[float]:
    total = table["pixels"].sum()
    return [float((table[name].fillna(0) * table["pixels"]).sum() / total) for name in ("confidence", "accuracy")]


def diagram(axis: Axes, table: pd.DataFrame, color: str) -> None:
    """Accuracy by confidence, the gap to the diagonal, and the share of pixels in each bin below."""
    used = table[table["pixels"] > 0]
    middle, width = (used["from"] + used["to"]) / 2, float(table["to"].iloc[0] - table["from"].iloc[0])
    gap = used["confidence"] - used["accuracy"]
    axis.bar(middle, used["accuracy"], width, color=color, ec="white", label="accuracy")
    axis.bar(
        middle, gap, width, bottom=used["accuracy"], facecolor=(1, 1, 1, 0.45), ec="black",
        hatch="//", linewidth=0.6, label="gap to confidence",
    )  # fmt: skip
    axis.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    share = table["pixels"] / max(table["pixels"].sum(), 1)
    axis.stairs(share, [*table["from"], 1.0], color="black", linewidth=1, label="share of pixels")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
