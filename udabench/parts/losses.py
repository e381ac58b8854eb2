"""Cross entropy for whatever a network returns."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from udabench.errors import PluginError
from udabench.labels import IGNORE
from udabench.network import Output
from udabench.parts.upsampled import summed_cross_entropy
from udabench.world import per_rank

Reduction = Literal["valid", "all"]


def segmentation_loss(
    output: Output, label: Tensor | None, weight: Tensor | None = None, reduction: Reduction = "valid"
) -> Tensor:
    """Weighted sum of the cross entropies of the main logits and of all further heads.

    Args:
        output: logits of any resolution; they are upsampled bilinearly to the label's size.
        label: N H W int64 at the size of the network's input, 255 is ignored.
        weight: N H W, factor of each pixel's loss.
        reduction: divide by the labelled pixels of the whole batch (``valid``), or by all pixels, the ignored ones
            included (``all``: mmseg 0.16, hence DAFormer, HRDA and MIC).

    Returns:
        Scalar; 0 where no pixel is labelled.
    """
    if label is None:
        raise PluginError(
            "A loss was asked for without labels; a method's target samples have none (only an oracle's)."
        )
    loss = output.weight * cross_entropy(output.logits, label, weight, reduction)
    for head in output.heads:
        inside, factor = label, weight
        if head.box is not None:
            top, left, height, width = head.box
            inside = label[:, top : top + height, left : left + width]
            factor = None if weight is None else weight[:, top : top + height, left : left + width]
        loss = loss + head.weight * cross_entropy(head.logits, inside, factor, reduction)
    return loss


def cross_entropy(
    logits: Tensor, label: Tensor, weight: Tensor | None = None, reduction: Reduction = "valid"
) -> Tensor:
    """Cross entropy of logits N C h w, upsampled bilinearly, against N H W labels. See :func:`segmentation_loss`."""
    total = summed_cross_entropy(logits, label, weight)
    if reduction == "all":
        return total / label.numel()
    return total / per_rank((label != IGNORE).sum())


def upsample(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, corners not aligned; the same tensor where the size fits already."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def take(output: Output, start: int, stop: int) -> Output:
    """The part of a joint batch's output that belongs to images ``start`` to ``stop``."""
    return output._replace(
        logits=output.logits[start:stop],
        features=tuple(feature[start:stop] for feature in output.features),
        heads=tuple(head._replace(logits=head.logits[start:stop]) for head in output.heads),
        coarse=None if output.coarse is None else output.coarse[start:stop],
        embedding=None if output.embedding is None else output.embedding[start:stop],
        branches=tuple(branch[start:stop] for branch in output.branches),
    )


def split(output: Output, images: Mapping[str, Tensor]) -> dict[str, Output]:
    """The output of a joint batch by the names of the images that it was made of, in their order."""
    ends = accumulate(map(len, images.values()))
    return {name: take(output, end - len(image), end) for (name, image), end in zip(images.items(), ends, strict=True)}
