"""Soft labels as artefacts: the most probable classes of each pixel and their shares, a byte each."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(soft: Tensor, kept: int) -> Tensor:
    """C H W shares of the classes -> 2k H W uint8: the ids of the ``kept`` largest, then their shares in 1/255.

    Errors of :func:`unpack`: what the other classes held, and half a step (0.002) for each class that is kept.
    """
    share, label = soft.topk(min(kept, len(soft)), 0)
    return torch.cat([label.to(torch.uint8), (share * 255).round().to(torch.uint8)])


def unpack(packed: Tensor, classes: int) -> Tensor:
    """N 2k H W uint8 -> N C H W float32, whose sum over the classes is 1 (0 where nothing was stored)."""
    label, share = packed.chunk(2, 1)
    shape = (len(packed), classes, *packed.shape[-2:])
    soft = torch.zeros(shape, device=packed.device).scatter_add_(1, label.long(), share.float())
    return soft / soft.sum(1, keepdim=True).clamp(min=1)
