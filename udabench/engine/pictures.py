"""What a Panel shows, as colours."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from udabench.errors import PluginError
from udabench.labels import LabelSpace


def to_rgb(picture: Tensor, classes: LabelSpace) -> Tensor:
    """A panel's picture as N 3 H W float in [0, 1], on the CPU.

    Args:
        picture: N 3 H W in [0, 1], N H W float in [0, 1] (a heat map), or N H W integer (class ids; 255 is black).

    Raises:
        PluginError: another shape.
    """
    picture = picture.detach().cpu()
    if picture.dim() == 4 and picture.shape[1] == 3 and picture.is_floating_point():
        return picture.float().clamp(0, 1)
    if picture.dim() == 3 and picture.is_floating_point():
        levels = (picture.float().nan_to_num().clamp(0, 1) * 255).round().long()
        return _heat()[levels].permute(0, 3, 1, 2)
    if picture.dim() == 3 and picture.dtype != torch.bool:
        return _colors(classes)[picture.long().clamp(0, 255)].permute(0, 3, 1, 2)
    raise PluginError(
        f"A Panel's picture has shape {tuple(picture.shape)} and type {picture.dtype}; it must be N 3 H W in [0, 1], "
        "N H W float, or N H W class ids."
    )


@cache
def _heat() -> Tensor:
    from matplotlib import colormaps

    return torch.tensor(colormaps["viridis"](range(256))[:, :3], dtype=torch.float32)


def _colors(classes: LabelSpace) -> Tensor:
    table = torch.zeros(256, 3)
    table[: len(classes)] = torch.tensor(classes.palette, dtype=torch.float32) / 255
    return table
