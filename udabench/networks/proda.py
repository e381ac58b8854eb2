"""The head of ProDA (Zhang et al. 2021), whose 256 channels before the classifier are what it takes prototypes of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from udabench.errors import UsageError
from udabench.network import EmbeddingHead

_GROUPS, _REDUCTION = 32, 16


class ProDAHead(EmbeddingHead):
    """Parallel convolutions of the last map, weighted by channel, fused to ``width`` channels; then a classifier.

    A 1x1 and for each dilation a 3x3 convolution with group norm and ReLU; squeeze and excitation of all of them; a 3x3
    convolution with group norm; Dropout2d; a 1x1 convolution without bias. Weights of convolutions begin as
    N(0, 0.01). Logits lie on the last map's grid.

    Args:
        width: channels of each branch and of the embedding; a multiple of 32.
        dilations: of the 3x3 convolutions.
        dropout: of whole channels; what is dropped is dropped in the embedding too, as in the authors' code.
        input_norm: a batch norm before all (``bn_clr`` in the authors' code, for encoders with SimCLR weights).
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        classes: int,
        *,
        width: int = 256,
        dilations: Sequence[int] = (6, 12, 18, 24),
        dropout: float = 0.1,
        input_norm: bool = False,
    ) -> None:
        super().__init__()
        if width < 1 or width % _GROUPS or not 0 <= dropout < 1:
            raise UsageError(
                f"Head proda: width is {width} and dropout {dropout}; use a multiple of {_GROUPS}, 0 <= dropout < 1."
            )
        self.output_stride, self.embedding_channels = strides[-1], width
        inputs, joint = channels[-1], width * (1 + len(dilations))
        self.input_bn = nn.BatchNorm2d(inputs) if input_norm else nn.Identity()
        shapes = [(1, 1), *((3, dilation) for dilation in dilations)]
        self.branches = nn.ModuleList(_branch(inputs, width, kernel, dilation) for kernel, dilation in shapes)
        self.excite = SqueezeExcitation(joint, joint // _REDUCTION)
        self.fuse = _convolution(joint, width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, classes, 1, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        x = self.input_bn(features[-1])
        joint = torch.cat([branch(x) for branch in self.branches], 1)
        embedding: Tensor = self.dropout(self.fuse(self.excite(joint)))
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        logits: Tensor = self.classifier(embedding)
        return logits


def _branch(inputs: int, width: int, kernel: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, width, kernel, dilation), nn.ReLU(inplace=True))


def _convolution(inputs: int, width: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution and group norm; keeps the grid's size."""
    layer = nn.Conv2d(inputs, width, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.GroupNorm(_GROUPS, width))
