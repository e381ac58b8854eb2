"""Attention of every position to every other by cosine, a block of rows at a time: no N x N matrix is kept.

The matrix of cosines is symmetric, and so is the one that its gradient is multiplied with. A block is therefore its
rows from the diagonal to the right, and serves as columns what lies below it. The backward pass makes the blocks again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_ON_CPU, _ON_GPU = 2**21, 2**25
"""Values in a block; on a GPU launches cost more than memory. Two blocks live at a time, and a mask of one."""


class SelfAttention(nn.Module):
    """The self-attention module of SAM (section 4.1): ``Q = Conv(Z)``, ``A = cos(Q, Q)``, ``Z' = norm(ReLU(A)) Z``.

    Args:
        channels: of its input.
        width: of the convolution, which has a bias, and neither norm nor activation; no source states it.
            None: no convolution, hence no parameters (the paper's "No Conv").
        kernel: side of the convolution, odd; no source states it.
    """

    def __init__(self, channels: int, width: int | None = 256, kernel: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.query: nn.Module = nn.Identity()
        if width is not None:
            self.query = nn.Conv2d(channels, width, kernel, padding=kernel // 2)

    def forward(self, logits: Tensor, skip: bool = False) -> Tensor:
        """Logits before upsampling, N C h w -> Z' as :func:`attend` gives it, with ``skip`` Z + Z'."""
        attended = attend(self.query(logits), logits)
        return logits + attended if skip else attended

    def row(self, logits: Tensor, place: tuple[int, int]) -> Tensor:
        """The attention of one position, a row of A' (Eq 5): logits N C h w -> N h w, whose sums are 1."""
        positive = similarity(self.query(logits), place)
        return positive / positive.sum((1, 2), keepdim=True).clamp(min=torch.finfo(positive.dtype).tiny)


def similarity(query: Tensor, place: tuple[int, int]) -> Tensor:
    """The positive part of the cosine of one position (row, column) to all: N d h w -> N h w, float32 at least."""
    unit = F.normalize(query.to(torch.promote_types(query.dtype, torch.float32)), dim=1)
    row, column = place
    return (unit[:, :, row, column, None, None] * unit).sum(1).relu()


def attend(query: Tensor, value: Tensor) -> Tensor:
    """Mean of the values of all positions, weighted by the positive part of the queries' cosine (SAM, Eq 4 to 7).

    Args:
        query: N d h w.
        value: N C h w.

    Returns:
        N C h w, float32 at least, also under autocast. 0 where the query is 0, which has no direction and a weight
        nowhere. The gradient can be taken once.
    """
    dtype = torch.promote_types(torch.promote_types(query.dtype, value.dtype), torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        unit = F.normalize(query.to(dtype).flatten(2), dim=1)
        attended: Tensor = _Attention.apply(unit, value.to(dtype).flatten(2))
    return attended.reshape(value.shape)


class _Block(NamedTuple):
    """Some rows of a symmetric matrix, from the diagonal on.

    Attributes:
        rows: which.
        columns: from the first of the rows to the last of all.
        below: the rows after these, whose columns these are.
    """

    rows: slice
    columns: slice
    below: slice


class _Attention(torch.autograd.Function):
    """Unit queries N d P and values N C P -> N C P.

    With S = ReLU(U'U), r the inverse of its row sums, Z the values, G the gradient of Z' and H = rG: the values' is
    H S, and the queries' is U D, where D_ij = H_i Z_j + H_j Z_i - H_i Z'_i - H_j Z'_j where S_ij > 0, else 0.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, value: Tensor) -> Tensor:
        ones = torch.ones_like(value[:, :1])
        counted = torch.cat([value, ones], 1)
        total = torch.zeros_like(counted)
        for block in _blocks(unit):
            _add_product(total, counted, _positive_cosine(unit, block), block)
        # The sum is at least 1, a position's cosine to itself, but for a query of 0.
        inverse = total[:, -1:].reciprocal().masked_fill(total[:, -1:] == 0, 0)
        attended = total[:, :-1] * inverse
        ctx.save_for_backward(unit, value, attended, inverse)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        unit, value, attended, inverse = ctx.saved_tensors
        with torch.autocast(unit.device.type, enabled=False):
            share = gradient * inverse
            own = (share * attended).sum(1, keepdim=True)
            ones = torch.ones_like(own)
            left, right = torch.cat([share, value, -own, -ones], 1), torch.cat([value, share, ones, own], 1)
            of_unit, of_value = (
                torch.zeros_like(tensor) if needed else None
                for tensor, needed in zip((unit, value), ctx.needs_input_grad, strict=True)
            )
            for block in _blocks(unit):
                cosine = _positive_cosine(unit, block)
                if of_value is not None:
                    _add_product(of_value, share, cosine, block)
                if of_unit is not None:
                    change = left[:, :, block.rows].mT @ right[:, :, block.columns]
                    _add_product(of_unit, unit, change.masked_fill_(cosine == 0, 0), block)
        return of_unit, of_value


def _blocks(unit: Tensor) -> Iterator[_Block]:
    count, _, positions = unit.shape
    values = _ON_CPU if unit.device.type == "cpu" else _ON_GPU
    start = 0
    while start < positions:
        stop = min(positions, start + max(1, values // (count * (positions - start))))
        yield _Block(slice(start, stop), slice(start, positions), slice(stop, positions))
        start = stop


def _positive_cosine(unit: Tensor, block: _Block) -> Tensor:
    """N rows columns."""
    return (unit[:, :, block.rows].mT @ unit[:, :, block.columns]).relu_()


def _add_product(total: Tensor, factor: Tensor, matrix: Tensor, block: _Block) -> None:
    """Add to ``total`` the block's part of ``factor`` N k P times a symmetric matrix, of which the block is given."""
    total[:, :, block.rows] += factor[:, :, block.columns] @ matrix.mT
    count = matrix.shape[1]
    total[:, :, block.below] += factor[:, :, block.rows] @ matrix[:, :, count:]
