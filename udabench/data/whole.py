"""Whole pictures as samples: what evaluations, predictions and a stage's ``prepare`` look at."""

from __future__ import annotations

import torch
from torch import Tensor

from udabench.method import Samples
from udabench.size import Size


def whole_images(image: Tensor, names: tuple[str, ...] | None = None) -> Samples:
    """N 3 H W, without labels, in no larger image and not mirrored."""
    count, size = len(image), Size(*image.shape[2:])
    return Samples(
        image=image,
        label=None,
        names=names or ("",) * count,
        valid=None,
        box=torch.tensor([[0, 0, *size]] * count),
        size=size,
        flipped=torch.zeros(count, dtype=torch.bool),
        layers={},
    )
