"""From logits to label maps at the label's size, in blocks of rows: logits of that size never exist at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.size import Size

CPU_BLOCK_BYTES = 4 * 2**20
"""Scores of a block on the CPU: small enough to stay in the cache."""
DEVICE_BLOCK_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Rows:
    """Where an output row comes from: ``(1 - weight) * input[low] + weight * input[high]``, as torch's interpolate.

    Attributes:
        low, high: H int64.
        weight: H.
    """

    low: Tensor
    high: Tensor
    weight: Tensor

    @classmethod
    def between(cls, inputs: int, outputs: int, align_corners: bool, like: Tensor) -> Rows:
        """The rows of a bilinear resize from ``inputs`` to ``outputs`` rows, in the type and place of ``like``."""
        position = torch.arange(outputs, dtype=like.dtype, device=like.device)
        if align_corners:
            position = position * ((inputs - 1) / max(outputs - 1, 1))
        else:
            position = (position + 0.5) * (inputs / outputs) - 0.5
        position = position.clamp(0, inputs - 1)
        low = position.floor().long()
        return cls(low, (low + 1).clamp(max=inputs - 1), position - low)


def score_blocks(
    logits: Tensor, size: Size, align_corners: bool = False, block_bytes: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of output rows with their scores, N C b W: logits, or for several views the mean of their probabilities.

    Args:
        logits: N C h w, or V N C h w for V views of the same images.
        size: H W of the output; bilinear.
        align_corners: as in ``torch.nn.functional.interpolate``.
        block_bytes: upper bound for the scores of a block; None: chosen for the device.
    """
    views = list(logits if logits.dim() == 5 else logits[None])
    count, classes, height, width = views[0].shape
    if width != size.width:
        wide = (height, size.width)
        views = [interpolate(view, wide, mode="bilinear", align_corners=align_corners) for view in views]
    rows = Rows.between(height, size.height, align_corners, logits) if height != size.height else None
    budget = block_bytes or (CPU_BLOCK_BYTES if logits.device.type == "cpu" else DEVICE_BLOCK_BYTES)
    step = max(1, budget // (count * classes * size.width * logits.element_size()))
    for first in range(0, size.height, step):
        here = slice(first, min(first + step, size.height))
        blocks = [_rows_of(view, rows, here) for view in views]
        scores = blocks[0] if len(blocks) == 1 else torch.stack([b.softmax(1) for b in blocks]).mean(0)
        yield here, scores


def _rows_of(logits: Tensor, rows: Rows | None, here: slice) -> Tensor:
    """N C h W -> N C b W."""
    if rows is None:
        return logits[:, :, here]
    weight = rows.weight[here, None]
    low = logits.index_select(2, rows.low[here])
    high = logits.index_select(2, rows.high[here])
    return low.mul_(1 - weight).addcmul_(high, weight)


def predict_labels(
    logits: Tensor,
    size: Size,
    align_corners: bool = False,
    allowed: Sequence[int] | None = None,
    block_bytes: int | None = None,
) -> Tensor:
    """The most likely class of each pixel: N H W uint8.

    Args:
        logits, size, align_corners, block_bytes: see :func:`score_blocks`.
        allowed: classes that may be chosen; None: all.
    """
    count = logits.shape[-4]
    labels = torch.empty(count, *size, dtype=torch.uint8, device=logits.device)
    for here, scores in score_blocks(logits, size, align_corners, block_bytes):
        chosen = scores if allowed is None else scores[:, list(allowed)]
        labels[:, here] = _argmax(chosen)
    if allowed is None:
        return labels
    return torch.tensor(list(allowed), dtype=torch.uint8, device=labels.device)[labels.long()]


def _argmax(scores: Tensor) -> Tensor:
    """N C b W -> N b W uint8; of equals the first."""
    if scores.device.type != "cpu":
        return scores.argmax(1).to(torch.uint8)
    # Several times faster on a CPU than argmax along a strided dimension.
    best = scores[:, 0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8)
    for index in range(1, scores.shape[1]):
        better = scores[:, index] > best
        labels.masked_fill_(better, index)
        torch.maximum(best, scores[:, index], out=best)
    return labels


def predict_entropy(logits: Tensor, size: Size, align_corners: bool = False, block_bytes: int | None = None) -> Tensor:
    """Shannon entropy of each pixel's class probabilities, in nats: N H W float32. See :func:`score_blocks`."""
    entropy = torch.empty(logits.shape[-4], *size, dtype=torch.float32, device=logits.device)
    several = logits.dim() == 5 and len(logits) > 1
    for here, scores in score_blocks(logits, size, align_corners, block_bytes):
        probability = scores if several else scores.softmax(1)
        entropy[:, here] = torch.special.entr(probability).sum(1)
    return entropy
