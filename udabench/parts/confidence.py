"""Model regularisers of CRST: what keeps a network from being too sure of its own pseudo-labels."""

from __future__ import annotations

from torch import Tensor

from udabench.labels import IGNORE
from udabench.parts.losses import upsample
from udabench.world import per_rank


def uniform_divergence(log_probability: Tensor) -> Tensor:
    """MRKLD: ``- 1/C sum_c log p_c``, the divergence of p from the uniform distribution but for a constant.

    N C H W -> N H W.
    """
    return -log_probability.mean(1)


def negative_entropy(log_probability: Tensor) -> Tensor:
    """MRENT: ``sum_c p_c log p_c``. N C H W -> N H W."""
    return (log_probability.exp() * log_probability).sum(1)


def confidence_penalty(logits: Tensor, label: Tensor, kld: float, entropy: float) -> Tensor:
    """``kld * MRKLD + entropy * MRENT``, the mean over the labelled pixels of the whole batch.

    Args:
        logits: N C h w, upsampled bilinearly to the labels; N may be 0 on some ranks.
        label: N H W int64; only where they are not 255 the network has learnt to be sure.
        kld, entropy: weights.

    Returns:
        Scalar; 0 where nothing is labelled.
    """
    claimed = label != IGNORE
    count = per_rank(claimed.sum())
    if not len(label):
        return logits.sum()
    logs = upsample(logits.float(), label.shape[-2:]).log_softmax(1)
    penalty = kld * uniform_divergence(logs) + entropy * negative_entropy(logs)
    return (penalty * claimed).sum() / count
