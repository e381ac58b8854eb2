"""Batch norms whose statistics shall not follow what they see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """In the block, batch norms normalise as their mode says, but running means and variances do not move."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def statistics_used(module: nn.Module) -> Iterator[None]:
    """In the block, batch norms normalise by their running statistics, which do not move (CRST: "frozen BN").

    Weights and biases are learnt as ever. All else keeps its mode.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.train(mode)
