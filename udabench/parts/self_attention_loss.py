"""The self-attention loss of SAM: logits follow what the frozen module makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Literal["l1", "l2", "kl", "cos"]
Space = Literal["logits", "probabilities"]
ClassReduction = Literal["mean", "pixel"]


def self_attention_loss(
    logits: Tensor,
    attended: Tensor,
    distance: Distance = "l1",
    space: Space = "logits",
    reduction: ClassReduction = "mean",
) -> Tensor:
    """Distance of Z to its self-attended form, which gets no gradient (SAM, Eq 8 and 9, Table A.5).

    With Z + Z' (Eq 8) both Z cancel in the distance of logits: the gradient of the mean L1 is ``-sign(Z') / numel``
    wherever Z lies, and that of L2 ``-2 Z' / numel``. Only Z' = 0 stops it; the other losses must.

    Args:
        logits: Z, before upsampling, N C h w.
        attended: Z + Z' (Eq 8) or Z' (Eq 9), of the same shape.
        distance: of each value its absolute (``l1``) or squared (``l2``) difference; ``kl``, the divergence of the
            softmax of Z from that of the attended, its direction and the norm of Eq 8 being lost; ``cos``, one less
            the cosine of each pixel's logits.
        space: what is compared; ``kl`` compares probabilities in both.
        reduction: the mean over pixels of the ``mean`` over their classes (over all N C h w values), or of their sum
            (``pixel``: C times as much); ``cos`` has one value a pixel, the same in both.

    Returns:
        Scalar, float32 at least.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    own, wanted = logits.to(dtype), attended.detach().to(dtype)
    if space == "probabilities" and distance != "kl":
        own, wanted = own.softmax(1), wanted.softmax(1)
    values = _DISTANCES[distance](own, wanted)
    return values.mean() if reduction == "mean" else values.sum(1).mean()


def _divergence(own: Tensor, wanted: Tensor) -> Tensor:
    return F.kl_div(own.log_softmax(1), wanted.log_softmax(1), reduction="none", log_target=True)


_DISTANCES: dict[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda own, wanted: (own - wanted).abs(),
    "l2": lambda own, wanted: (own - wanted).square(),
    "kl": _divergence,
    "cos": lambda own, wanted: 1 - F.cosine_similarity(own, wanted, dim=1).unsqueeze(1),
}
