"""Entropy of predictions as a loss: its mean (ADVENT's direct entropy), and a robust form of it (FDA)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from udabench.parts.grid import nearest
from udabench.world import per_rank


def normalised_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy over its largest value, ``-sum p log p / log C``, in [0, 1]: N C h w -> N h w.

    Float32 at least; the base of the logarithm cancels out.
    """
    return -_p_log_p(logits).sum(1) / math.log(logits.shape[1])


def self_information(logits: Tensor) -> Tensor:
    """Each class's part of :func:`normalised_entropy`: N C h w -> N C h w (ADVENT sec 3.2, and its code's divisor)."""
    return -_p_log_p(logits) / math.log(logits.shape[1])


def mean_entropy(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of the normalised entropy over all pixels (ADVENT, Eq 3 over its number of terms; its code's divisor).

    Args:
        logits: N C h w.
        valid: N H W bool, False on padding, which is left out; taken to h w by nearest.

    Returns:
        Scalar in [0, 1].
    """
    return _mean(normalised_entropy(logits), valid)


def robust_entropy(logits: Tensor, eta: float = 2.0, valid: Tensor | None = None) -> Tensor:
    """Mean of ``(h^2 + 1e-8)^eta`` with h the normalised entropy: uncertain pixels count most (FDA's code).

    Args:
        logits, valid: as for :func:`mean_entropy`.
        eta: > 0; 0.5 would be the mean of h.
    """
    return _mean((normalised_entropy(logits).square() + 1e-8).pow(eta), valid)


def _p_log_p(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return log_p.exp() * log_p


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of N h w over the pixels that are no padding."""
    if valid is None:
        return values.mean()
    inside = nearest(valid, values.shape[-2:])
    return (values * inside).sum() / per_rank(inside.sum())
