"""Layers that several heads share."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional


class ConvBnReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; keeps the grid's size.

    The norm is called ``bn`` on purpose: the rule that switches weight decay off looks for "norm" in parameter names,
    and in the DAFormer code a decoder's batch norms do decay.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.add_module("conv", conv)
        self.add_module("bn", nn.BatchNorm2d(outputs))
        self.add_module("relu", nn.ReLU(inplace=True))


class SeparableConvBnReLU(nn.Sequential):
    """Depthwise 3x3, then pointwise 1x1, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.add_module("depthwise", ConvBnReLU(inputs, inputs, 3, dilation, groups=inputs))
        self.add_module("pointwise", ConvBnReLU(inputs, outputs))


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Bilinear, ``align_corners=False``: N C h w -> the height and width of ``reference``."""
    if x.shape[-2:] == reference.shape[-2:]:
        return x
    return functional.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def classifier(inputs: int, classes: int, kernel: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution to the classes with weights N(0, 0.01) and no bias to begin with (DeepLab, mmseg)."""
    layer = nn.Conv2d(inputs, classes, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def normal_weights(module: nn.Module, std: float = 0.02) -> None:
    """Weights of all convolutions as N(0, ``std``), biases as they are (pix2pixHD; DCGAN's rule)."""
    for part in _convolutions(module):
        nn.init.normal_(part.weight, std=std)


def kaiming_weights(module: nn.Module) -> None:
    """Weights of all convolutions as N(0, 2 / fan-in), biases as they are (He et al. 2015)."""
    for part in _convolutions(module):
        nn.init.kaiming_normal_(part.weight)


def zero_biases(module: nn.Module) -> None:
    """Biases of all convolutions as 0 (CycleGAN code, MUNIT code)."""
    for part in _convolutions(module):
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def _convolutions(module: nn.Module) -> Iterator[nn.Conv2d | nn.ConvTranspose2d]:
    return (part for part in module.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d))
