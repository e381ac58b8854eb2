"""A network that is tiny in every respect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.network import Network, Output


class FakeNetwork(Network):
    """Two strided convolutions with batch norms and a 1x1 head; registered as ``fake``.

    The pyramid has two maps, at strides 2 and 4; the logits lie on the second. Its first predictions are already sure
    in some places and unsure in others, so that methods with a threshold have something to do.

    Args:
        classes: number of outputs.
        weights: ``none``; there are no others.
        width: channels of the first map; the second has twice as many.
        dropout: before the head.
    """

    def __init__(self, classes: int, weights: str = "none", *, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        if weights != "none":
            raise UsageError(f"The fake network has no weights '{weights}'. Use network.weights = none.")
        self.classes, self.output_stride, self.feature_channels = classes, 4, (width, 2 * width)
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(2 * width, classes, 1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
        nn.init.normal_(self.head.weight, std=1.5)

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        return self.decode(self.encode(image, domain))

    def decode(self, features: tuple[Tensor, ...]) -> Output:
        return Output(self.head(self.dropout(features[-1])), features)

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        fine = torch.relu(self.norm1(self.conv1(2 * image - 1)))
        return fine, torch.relu(self.norm2(self.conv2(fine)))

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        return {
            "encoder": [*self.conv1.parameters(), *self.conv2.parameters()],
            "encoder_norm": [*self.norm1.parameters(), *self.norm2.parameters()],
            "head": list(self.head.parameters()),
        }
