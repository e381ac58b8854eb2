"""SegFormer's head (Xie et al. 2021, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.network import DecodeHead
from udabench.networks.layers import ConvBnReLU, classifier, resize_like


class SegFormerHead(DecodeHead):
    """Every map embedded to ``width`` channels on the finest grid and fused by a 1x1 convolution; dropout; classifier.

    Logits lie on the finest map's grid. SegFormer's own width is 256 for B0 and B1 and 768 for the larger ones.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], classes: int, *, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1 or width < 1:
            raise UsageError(
                f"Head segformer: width is {width} and dropout {dropout}; use width >= 1, 0 <= dropout < 1."
            )
        self.output_stride = strides[0]
        self.embeds = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.fuse = ConvBnReLU(width * len(channels), width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(width, classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        embedded = [embed(feature) for embed, feature in zip(self.embeds, features, strict=True)]
        fused = self.fuse(torch.cat([resize_like(level, features[0]) for level in embedded], dim=1))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits
