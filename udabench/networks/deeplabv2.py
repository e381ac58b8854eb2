"""The DeepLabV2 head (Chen et al. 2017) of AdaptSegNet and its descendants."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.network import BranchedHead
from udabench.networks.layers import classifier

DILATIONS = {"deeplab": (6, 12, 18, 24), "adaptsegnet-legacy": (6, 12)}
"""By name. The legacy one is what code with a ``return`` inside its loop really summed (AdaptSegNet, DACS, ProDA, BDL
before July 2020); DAFormer's published R101 rows use it too."""


class DeepLabV2Head(BranchedHead):
    """The sum of parallel dilated 3x3 convolutions of the last map, with bias: no norm, no ReLU, no dropout.

    Logits lie on the last map's grid. Options: ``dilations``, a list or a name in :data:`DILATIONS`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        classes: int,
        *,
        dilations: Sequence[int] | str = "deeplab",
    ) -> None:
        super().__init__()
        self.output_stride = strides[-1]
        self.dilations = _checked(dilations)
        self.branch_count = len(self.dilations)
        self.branches = nn.ModuleList(classifier(channels[-1], classes, 3, d) for d in self.dilations)

    def branch_logits(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(branch(features[-1]) for branch in self.branches)


def _checked(dilations: Sequence[int] | str) -> tuple[int, ...]:
    if isinstance(dilations, str):
        if dilations not in DILATIONS:
            names = ", ".join(DILATIONS)
            raise UsageError(
                f"Option dilations is '{dilations}'; use a list such as [6, 12, 18, 24], or one of {names}."
            )
        return DILATIONS[dilations]
    if not dilations or any(not isinstance(d, int) or d < 1 for d in dilations):
        raise UsageError(f"Option dilations is {dilations!r}; use a list of whole numbers >= 1.")
    return tuple(dilations)
