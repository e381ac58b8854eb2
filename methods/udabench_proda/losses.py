"""Symmetric cross entropy (Wang et al. 2019) as ProDA weighs it."""

from __future__ import annotations

import math

from torch import Tensor

from udabench.labels import IGNORE
from udabench.parts.losses import cross_entropy
from udabench.world import per_rank


def reverse_cross_entropy(logits: Tensor, label: Tensor, floor: float = 1e-4) -> Tensor:
    """Mean over labelled pixels of ``-sum_c p_c log q_c``: q is 1 for the label's class and ``floor`` for the others.

    As log 1 is 0, that is ``-log(floor) * (1 - p_label)``: bounded, however sure the network is of something else.

    Args:
        logits: N C h w.
        label: N h w int64 on the same grid, 255 is left out.

    Returns:
        Scalar; 0 where no pixel is labelled.
    """
    known = label != IGNORE
    probability = logits.float().softmax(1).gather(1, label.where(known, 0).unsqueeze(1)).squeeze(1)
    return -math.log(floor) * ((1 - probability) * known).sum() / per_rank(known.sum())


def symmetric_cross_entropy(logits: Tensor, label: Tensor, forward: float, reverse: float, floor: float) -> Tensor:
    """``forward * CE + reverse * RCE`` (paper Eq 7)."""
    return forward * cross_entropy(logits, label) + reverse * reverse_cross_entropy(logits, label, floor)
