"""Confusion matrices of label maps."""

from __future__ import annotations

import torch
from torch import Tensor

from udabench.labels import IGNORE


def confusion_matrix(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Pixel counts of one image: C C int64, rows truth, columns prediction.

    Args:
        truth: H W uint8, 255 where unknown; those pixels are dropped.
        prediction: H W uint8, below ``classes``.

    Raises:
        ValueError: the sizes differ, or an id is neither a class nor 255.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {tuple(truth.shape)} but prediction is {tuple(prediction.shape)}")
    # 256 columns each, so that no pixel needs a mask and no wrong id is taken for another.
    pairs = truth.flatten().to(torch.int32) * 256 + prediction.flatten()
    counts = torch.bincount(pairs, minlength=256 * 256).view(256, 256)
    known = counts[:IGNORE]
    matrix = known[:classes, :classes].clone()
    if matrix.sum() != known.sum():
        strange = torch.nonzero(known)
        raise ValueError(f"ids (truth, prediction) {strange[(strange >= classes).any(1)][:5].tolist()} of {classes}")
    return matrix
