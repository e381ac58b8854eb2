"""Logits at the label's size, a few rows at a time: what is asked of every pixel without a whole map of every class.

Bilinear upsampling (corners not aligned) is a product with a sparse matrix along each axis. A block of rows stays in
the processor's cache, and neither the block nor its softmax is kept for the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from udabench.labels import IGNORE

_CACHED, _AT_ONCE = 2**18, 2**26
"""Values in a block: for each thread of a CPU, and on a GPU, where launches cost more than memory."""


class Block(NamedTuple):
    """Some rows of upsampled logits.

    Attributes:
        rows: which, of the full size.
        values: N C r W.
        below: rows of the small map that they were made of.
        matrix: r x k, how.
    """

    rows: slice
    values: Tensor
    below: slice
    matrix: Tensor


def linear_matrix(length: int, size: int, device: torch.device) -> Tensor:
    """``size`` x ``length``: linear interpolation along one axis, corners not aligned."""
    place = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (length / size) - 0.5
    away = place.clamp(0, length - 1).unsqueeze(1) - torch.arange(length, device=device)
    return (1 - away.abs()).clamp(min=0)


def upsampled(logits: Tensor, size: tuple[int, int]) -> Iterator[Block]:
    """All rows of float32 logits N C h w upsampled to ``size``, from top to bottom."""
    height, width = size
    small = logits.float().contiguous()
    if small.shape[3] != width:
        small = small @ linear_matrix(small.shape[3], width, logits.device).T
    count, classes, length = small.shape[:3]
    matrix = linear_matrix(length, height, logits.device)
    values = _CACHED * torch.get_num_threads() if small.device.type == "cpu" else _AT_ONCE
    step = max(1, values // (count * classes * width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        below = _sources(rows, length, height)
        part = matrix[rows, below]
        yield Block(rows, part @ small[:, :, below], below, part)


def _sources(rows: slice, length: int, height: int) -> slice:
    """The rows of the small map that have a share in these."""
    first, last = ((row + 0.5) * length / height - 0.5 for row in (rows.start, rows.stop - 1))
    return slice(max(0, math.floor(first)), min(length, math.floor(last) + 2))


def most_probable(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Probability and id of the most probable class of each pixel, the first of equals: N H W float32 and int64."""
    confidence = logits.new_empty(len(logits), *size, dtype=torch.float32)
    label = torch.empty_like(confidence, dtype=torch.int64)
    classes = torch.arange(logits.shape[1], dtype=torch.float32, device=logits.device).view(1, -1, 1, 1)
    with torch.autocast(logits.device.type, enabled=False):
        for block in upsampled(logits, size):
            best = block.values.amax(1, keepdim=True)
            # No class equals a NaN; the ids must stay valid until the loss is found out.
            label[:, block.rows] = torch.where(block.values == best, classes, logits.shape[1] - 1).amin(1).long()
            confidence[:, block.rows] = (block.values - best).exp().sum(1).reciprocal()
    return confidence, label


def summed_cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum over all labelled pixels of the cross entropy of logits N C h w upsampled to the label's size.

    Args:
        label: N H W int64, 255 is left out.
        weight: N H W, factor of each pixel; gets no gradient.

    Returns:
        float32 scalar, whose gradient can be taken once.
    """
    factor = (label != IGNORE).float()
    if weight is not None:
        factor = factor * weight.detach()
    total: Tensor = _SummedCrossEntropy.apply(logits, label, factor)
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    """The gradient is that of a sum, so it is made with the value and only scaled in the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, factor: Tensor) -> Tensor:
        total = logits.new_zeros((), dtype=torch.float32)
        height, width = label.shape[-2:]
        across = logits.new_zeros(*logits.shape[:3], width, dtype=torch.float32)
        classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
        with torch.autocast(logits.device.type, enabled=False):
            for block in upsampled(logits, (height, width)):
                wanted, share = label[:, block.rows], factor[:, block.rows]
                logs = block.values.log_softmax(1)
                total += (F.nll_loss(logs, wanted, ignore_index=IGNORE, reduction="none") * share).sum()
                if ctx.needs_input_grad[0]:
                    here = (wanted.unsqueeze(1) == classes).float()
                    change = logs.exp_().sub_(here).mul_(share.unsqueeze(1))
                    across[:, :, block.below] += block.matrix.T @ change
            if logits.shape[3] != width:
                across = across @ linear_matrix(logits.shape[3], width, logits.device)
        ctx.save_for_backward(across.to(logits.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        (across,) = ctx.saved_tensors
        return across * gradient, None, None
