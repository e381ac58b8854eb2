"""What the conductor's evaluation during the training gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from udabench.method import Method


class Evaluated(NamedTuple):
    """An evaluation's results.

    Attributes:
        values: name -> value, for the log.
        matrices: predictor -> confusion matrix, C C, truth in rows, for the watchdog.
    """

    values: Mapping[str, float]
    matrices: Mapping[str, Tensor] = {}


Evaluate = Callable[[Method, int], Evaluated]
"""``evaluate(method, iteration)``: called in eval mode, without gradients; random state, modes and buffers are restored
afterwards."""
