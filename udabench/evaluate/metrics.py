"""Metrics of confusion matrices, accumulated over a whole set. Imports no torch, so that records are read quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def iou(matrix: Matrix) -> Values:
    """Intersection over union of each class, ``I / (P + G - I)``: C float64, NaN where the union is empty.

    Args:
        matrix: C C counts, rows truth, columns prediction, summed over the whole set. A mean over images of the
            images' own values is another, wrong number.
    """
    intersection = np.diagonal(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - intersection
    values: Values = np.divide(intersection, union, out=np.full(len(matrix), np.nan), where=union > 0)
    return values


def mean_iou(values: Values, classes: Sequence[int]) -> float:
    """Mean over those of ``classes`` that have a value; NaN where none has."""
    chosen = values[list(classes)]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if len(chosen) else float("nan")


def mean_ious(values: Values, evaluated: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Metric name -> mean: a sub-average over rows of one matrix, whatever the other rows score."""
    return {name: mean_iou(values, classes) for name, classes in evaluated.items()}


def pixel_accuracy(matrix: Matrix) -> float:
    """Share of known pixels that are right; NaN for none."""
    total = int(matrix.sum())
    return float(np.trace(matrix)) / total if total else float("nan")
