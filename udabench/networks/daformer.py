"""DAFormer's context-aware fusion head (Hoyer et al. 2022, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.network import DecodeHead
from udabench.networks.layers import ConvBnReLU, SeparableConvBnReLU, classifier, resize_like

_DILATIONS = (6, 12, 18)


class DAFormerHead(DecodeHead):
    """Every map embedded to ``width`` channels on the finest grid, then a depthwise separable ASPP without pooling.

    A 1x1 branch beside separable 3x3 branches of dilation 6, 12 and 18; their concatenation is fused by a 3x3
    convolution; dropout; classifier. Logits lie on the finest map's grid.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], classes: int, *, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1 or width < 1:
            raise UsageError(
                f"Head daformer: width is {width} and dropout {dropout}; use width >= 1, 0 <= dropout < 1."
            )
        self.output_stride = strides[0]
        self.embeds = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        joined = width * len(channels)
        self.aspp = nn.ModuleList(
            [ConvBnReLU(joined, width), *(SeparableConvBnReLU(joined, width, d) for d in _DILATIONS)]
        )
        self.fuse = ConvBnReLU(width * len(self.aspp), width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(width, classes)

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """The maps, embedded and joined on the finest grid: N (levels * width) h w."""
        embedded = [embed(feature) for embed, feature in zip(self.embeds, features, strict=True)]
        return torch.cat([resize_like(level, features[0]) for level in embedded], dim=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        joined = self.embed(features)
        fused = self.fuse(torch.cat([branch(joined) for branch in self.aspp], dim=1))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits
