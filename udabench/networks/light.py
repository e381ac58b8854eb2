"""A small head: levels are projected, added from coarse to fine, and smoothed once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.network import EmbeddingHead
from udabench.networks.layers import SeparableConvBnReLU, classifier, resize_like


class LightHead(EmbeddingHead):
    """A feature pyramid network (Lin et al. 2017, top-down path) with one separable convolution before the classifier.

    Logits lie on the finest map's grid.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], classes: int, *, width: int = 64, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1 or width < 1:
            raise UsageError(f"Head light: width is {width} and dropout {dropout}; use width >= 1, 0 <= dropout < 1.")
        self.output_stride, self.embedding_channels = strides[0], width
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = SeparableConvBnReLU(width, width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(width, classes)

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        merged: Tensor = levels.pop()
        while levels:
            finer = levels.pop()
            merged = finer + resize_like(merged, finer)
        embedding: Tensor = self.dropout(self.smooth(merged))
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        logits: Tensor = self.classifier(embedding)
        return logits
