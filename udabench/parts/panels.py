"""Pictures for the log."""

from __future__ import annotations

from torch import Tensor

from udabench.method import Panel
from udabench.parts.losses import upsample


def prediction_panel(logits: Tensor, size: tuple[int, ...], name: str = "prediction") -> Panel:
    """The most probable class of each pixel of ``size``, from logits N C h w. Their graph is let go at once."""
    seen = logits.detach()
    return Panel(name, lambda: upsample(seen, size).argmax(1))
