"""VGG16 made fully convolutional (Long et al. 2015): the encoder of FCN-8s."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn
from torchvision.models import VGG16_Weights

from udabench.errors import UsageError
from udabench.network import CAFFE, TORCH, Backbone, WeightsReport
from udabench.networks.keymaps import vgg_names
from udabench.networks.resnet import torchvision_file
from udabench.networks.weights import Published, find, load_weights

Lineage = Literal["torchvision", "caffe"]
BORDER = 100
"""Zeros around the image (padding of the first convolution), so that fc6 has an image of any size to look at."""
_BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Of each block: its width over the first one's, and its convolutions."""


class VGG16(Backbone):
    """VGG16 whose linear layers are convolutions: pool3, pool4 and fc7, each with what the border adds to it.

    A 1024x512 image gives maps of 153x89, 77x45 and 33x17. Values are named as torchvision names them, but ``fc6`` and
    ``fc7``, which are its ``classifier.0`` and ``classifier.3``. Max pooling rounds up; Dropout2d follows fc6.

    Args:
        argument: none.
        lineage: what its weights were trained on. ``torchvision``: RGB in [0, 1], less the mean, over the standard
            deviation. ``caffe``: BGR in [0, 255] less the mean of BDL's code (AdaptSegNet, BDL, FDA).
        width: channels of the first block, others in proportion; only 64 has published weights.

    Weights: ``imagenet``, a file with the names of torchvision, timm or the Caffe conversion, or ``none``.
    """

    published: ClassVar[Mapping[Lineage, Mapping[str, Published]]] = {
        "torchvision": {"imagenet": torchvision_file(VGG16_Weights.IMAGENET1K_V1)},
        "caffe": {"imagenet": Published("https://s3-us-west-2.amazonaws.com/jcjohns-models/vgg16-00b39a1b.pth")},
    }
    strides = (8, 16, 32)

    def __init__(self, argument: str = "", *, lineage: Lineage = "torchvision", width: int = 64) -> None:
        super().__init__()
        _check(argument, lineage, width)
        self.lineage = lineage
        self.normalization = CAFFE if lineage == "caffe" else TORCH
        hidden = 64 * width
        self.channels = (4 * width, 8 * width, hidden)
        self.features = _features(width)
        self.fc6 = nn.Conv2d(8 * width, hidden, 7)
        self.drop6 = nn.Dropout2d()
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        _initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        pools, x = [], image
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        x = self.drop6(self.fc6(x).relu())
        return pools[2], pools[3], self.fc7(x).relu()

    def load_weights(self, weights: str) -> WeightsReport:
        return load_weights(self, weights, self.published[self.lineage], vgg_names)

    def weights_path(self, weights: str) -> Path | None:
        return find(weights, self.published[self.lineage])


def _features(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs, padding = 3, BORDER
    for factor, count in _BLOCKS:
        for _ in range(count):
            layers += [nn.Conv2d(inputs, factor * width, 3, padding=padding), nn.ReLU(inplace=True)]
            inputs, padding = factor * width, 1
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers)


def _initialise(backbone: VGG16) -> None:
    """As torchvision's VGG begins: He's for convolutions, 0.01 for what were linear layers, biases 0."""
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    for layer in (backbone.fc6, backbone.fc7):
        nn.init.normal_(layer.weight, std=0.01)


def _check(argument: str, lineage: str, width: int) -> None:
    if argument:
        raise UsageError(f"Backbone vgg16 takes no argument, but got '{argument}'.")
    if lineage not in get_args(Lineage):
        raise UsageError(f"Option lineage is '{lineage}'; use one of {', '.join(get_args(Lineage))}.")
    if not isinstance(width, int) or width < 1:
        raise UsageError(f"Option width is {width!r}; use a whole number >= 1 (64: VGG16).")
