"""VGG19's features: what perceptual losses compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

from udabench.network import Backbone, WeightsReport
from udabench.networks.resnet import torchvision_file
from udabench.networks.weights import find, load_weights

_PUBLISHED = {"imagenet": replace(torchvision_file(VGG19_Weights.IMAGENET1K_V1), without="do without VGG19")}
_TAPS = (1, 6, 11, 20, 29)
"""Places of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 among torchvision's layers."""


class Vgg19(Backbone):
    """VGG19 (Simonyan and Zisserman 2015) up to relu5_1: the maps of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1,
    the five of pix2pixHD.

    Weights: ``imagenet`` (torchvision's), or a file with torchvision's names; its other layers are left out.
    """

    channels = (64, 128, 256, 512, 512)
    strides = (1, 2, 4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.features: nn.Sequential = make_layers(cfgs["E"], batch_norm=False)[: _TAPS[-1] + 1]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        for place, layer in enumerate(self.features):
            image = layer(image)
            if place in _TAPS:
                maps.append(image)
        return tuple(maps)

    def load_weights(self, weights: str) -> WeightsReport:
        return load_weights(self, weights, _PUBLISHED)

    def weights_path(self, weights: str) -> Path | None:
        return find(weights, _PUBLISHED)
