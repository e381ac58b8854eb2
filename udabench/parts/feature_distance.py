"""Thing-class feature distance to ImageNet features (DAFormer, Eq 8)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from udabench.errors import UsageError
from udabench.labels import LabelSpace
from udabench.world import per_rank

THINGS = (
    "traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip


def thing_ids(classes: LabelSpace) -> tuple[int, ...]:
    """Ids of DAFormer's thing classes, by their Cityscapes names. Raises UsageError where there are none."""
    ids = tuple(i for i, name in enumerate(classes.names) if name in THINGS)
    if not ids:
        raise UsageError(
            f"feature_distance needs thing classes such as 'car'; '{classes.name}' names none. Set feature_distance=0."
        )
    return ids


def thing_mask(label: Tensor, things: tuple[int, ...], size: tuple[int, int], majority: float = 0.75) -> Tensor:
    """Cells of a feature grid of which one thing class covers at least ``majority``.

    Args:
        label: N H W int64; pixels of 255 count as uncovered.
        things: class ids.
        size: height and width of the grid.

    Returns:
        N h w bool.
    """
    ids = torch.tensor(things, device=label.device).view(1, -1, 1, 1)
    shares: Tensor = F.adaptive_avg_pool2d((label.unsqueeze(1) == ids).float(), size)
    return shares.amax(1) >= majority


def feature_distance(student: Tensor, frozen: Tensor, mask: Tensor) -> Tensor:
    """Mean Euclidean distance (over channels) in the masked cells of the whole batch; 0 where the mask is empty.

    Args:
        student, frozen: N D h w.
        mask: N h w bool.
    """
    distance: Tensor = torch.linalg.vector_norm(student.float() - frozen.float(), dim=1)
    return (distance * mask).sum() / per_rank(mask.sum())
