"""ClassMix: paste half of the classes of one image onto another."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.labels import IGNORE
from udabench.world import own, total, world_size

Scope = Literal["image", "batch"]


def class_mask(label: Tensor, rng: Rng, scope: Scope = "image") -> Tensor:
    """Where the pixels of ``ceil(n / 2)`` randomly drawn label values lie.

    Args:
        label: N H W int64 in 0..255; 255 is a value like any other (as in the code of DACS and DAFormer).
        rng: CPU generator; each image draws for itself.
        scope: ``image``: the n values present in that image (DACS); ``batch``: those present in the whole batch
            (DAFormer), of which an image may lack some.

    Returns:
        N H W bool.
    """
    values = label.flatten(1)
    present = torch.zeros(len(label), IGNORE + 1, dtype=torch.bool, device=label.device)
    present.scatter_(1, values, True)
    if scope == "batch":
        present = (total(present.sum(0, keepdim=True)) > 0).expand_as(present)
    keys = own(torch.rand(len(label) * world_size(), IGNORE + 1, generator=rng)).to(label.device)
    # Ranks of random keys are a random order; values that are absent come last.
    ranks = keys.masked_fill(~present, 2.0).argsort(1).argsort(1)
    chosen = ranks < (present.sum(1, keepdim=True) + 1) // 2
    return chosen.gather(1, values).view_as(label)


def paste(mask: Tensor, over: Tensor, under: Tensor) -> Tensor:
    """``over`` where the mask (N H W bool) is set, else ``under``; both N H W or N C H W."""
    return torch.where(mask.unsqueeze(1) if over.ndim == 4 else mask, over, under)
