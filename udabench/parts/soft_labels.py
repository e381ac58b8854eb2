"""Soft labels: class probabilities of whole images, packed for the disk, and cut where a crop lies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from udabench.errors import DataError
from udabench.method import Samples
from udabench.size import Size

SOFT = "soft_label"
"""The artefact's usual name."""
BYTES = 3
"""Of each class that is kept: its id, and its probability as a half-precision number."""


def pack(probability: Tensor, kept: int) -> Tensor:
    """The ``kept`` likeliest classes of each cell, the likeliest first.

    What is restored of these is exact to a relative 2^-11 (or 3e-8, where that is more). The others share what is left
    of 1 evenly: each is off by no more than that, which is less than 1 - kept / C.

    Args:
        probability: C h w, C at most 256.
        kept: classes of each cell; at most C are.

    Returns:
        uint8, ``BYTES * kept`` h w, to be written as an artefact: ids, low and high bytes of the probabilities.
    """
    values, ids = probability.float().topk(min(kept, len(probability)), 0)
    bits = values.half().view(torch.int16).int()
    return torch.cat([ids, bits & 255, bits >> 8 & 255]).byte()


def unpack(packed: Tensor, classes: int) -> Tensor:
    """N B h w, as :func:`pack` made them -> probabilities N C h w, float32; on padding (0) nothing that means anything.

    Raises DataError where they hold ids of other classes, or are no packed map at all.
    """
    channels = packed.shape[1]
    kept = channels // BYTES
    whole = packed.dtype == torch.uint8 and channels % BYTES == 0 and kept <= classes
    # A GPU would be waited for; it ends the run by itself when an id is out of range.
    known = packed.device.type != "cpu" or not len(packed) or int(packed[:, :kept].amax()) < classes
    if not (whole and known):
        raise DataError(
            f"Soft labels of {channels} {packed.dtype} channels do not belong to {classes} classes: they were written "
            "by another task. Remove the artefact and resume: it is made again."
        )
    ids, low, high = packed.long().chunk(BYTES, 1)
    values = (low | high << 8).to(torch.int16).view(torch.float16).float()
    left = (1 - values.sum(1, keepdim=True)).clamp(min=0) / max(1, classes - kept)
    return left.expand(-1, classes, -1, -1).scatter(1, ids, values)


def cut(whole: Tensor, samples: Samples, size: Size) -> Tensor:
    """The part of maps of whole images that the crops show, mirrored as these are, bilinear on a grid of its own.

    Args:
        whole: N C h w, over the whole image; any grid.
        samples: where the crops lie.
        size: height and width of what is returned.

    Returns:
        N C size, float32; beyond the image (padding) the values of its border.
    """
    rows, columns = (_places(samples, axis, size[axis]) for axis in (0, 1))
    columns = torch.where(samples.flipped[:, None], columns.flip(1), columns)
    shape = len(rows), *size
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
    return F.grid_sample(whole.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _places(samples: Samples, axis: int, length: int) -> Tensor:
    """The centres of ``length`` equal parts of each crop along an axis, from -1 to 1 over the whole image: N length."""
    first, extent, whole = samples.box[:, axis], samples.box[:, axis + 2], samples.whole[:, axis]
    within = (torch.arange(length, device=first.device) + 0.5) / length
    return 2 * (first[:, None] + within * extent[:, None]) / whole[:, None] - 1
