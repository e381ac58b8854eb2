"""Discriminators: what they say of a map, patch by patch, at one scale or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import Tensor, nn

from udabench.networks.layers import normal_weights, zero_biases
from udabench.size import Size

Beyond = Literal["zeros", "reflect"]
"""What a convolution sees beyond the map's border."""


class Verdict(NamedTuple):
    """What a discriminator says of a batch.

    Attributes:
        scores: a map for each scale, finest first, each N 1 h w: logits, the higher the more real.
        features: for each scale the maps of the hidden layers, in order, each N c h w.
    """

    scores: tuple[Tensor, ...]
    features: tuple[tuple[Tensor, ...], ...]


class Discriminator(nn.Module, ABC):
    """Takes N C H W: class probabilities, an image, or a label map and an image joined."""

    @abstractmethod
    def forward(self, x: Tensor) -> Verdict: ...

    @abstractmethod
    def grids(self, size: Size) -> tuple[tuple[Size, ...], ...]:
        """The sizes of what :meth:`forward` gives for an input of ``size``: of each scale's layers, the scores last."""

    def why_not(self, size: Size) -> str | None:
        """A reason why maps of this size cannot be judged, or None."""
        for scale, grids in enumerate(self.grids(size), start=1):
            hidden, scores = grids[-2], grids[-1]
            # A norm over a single position gives 0 whatever it is given.
            if min(scores) < 1 or hidden.height * hidden.width < 2:
                return f"the discriminator of scale {scale} has no patches in a map of {size}; use a larger one"
        return None


class PatchwiseDiscriminator(Discriminator):
    """One scale: hidden layers, each of which starts with a convolution, and a last convolution to the scores."""

    def __init__(self, hidden: Iterable[nn.Sequential], last: nn.Conv2d) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(hidden)
        self.last = last

    def forward(self, x: Tensor) -> Verdict:
        features: list[Tensor] = []
        for layer in self.hidden:
            x = layer(x)
            features.append(x)
        return Verdict((self.last(x),), (tuple(features),))

    def grids(self, size: Size) -> tuple[tuple[Size, ...], ...]:
        grids: list[Size] = []
        for convolution in self.convolutions():
            size = Size(*(_side(side, convolution) for side in size))
            grids.append(size)
        return (tuple(grids),)

    def convolutions(self) -> list[nn.Conv2d]:
        """In order, the last one included."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


class FullyConvolutionalDiscriminator(PatchwiseDiscriminator):
    """AdaptSegNet's: five 4x4 convolutions of stride 2 and padding 1, one score for each 32x32 cell, no norm.

    Channels are 1, 2, 4 and 8 times ``width``, then 1; LeakyReLU 0.2 between. PyTorch's own initial values.
    Methods: AdaptSegNet, ADVENT, BDL; LDR section 4.2 (D).
    """

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__(_strided(inputs, width, 4), _convolution(8 * width, 1, 2, 1))


class StridedDiscriminator(PatchwiseDiscriminator):
    """One scale of UNIT's (MUNIT code): 4x4 convolutions of stride 2, padded by reflection, then a 1x1 convolution.

    Channels double from ``width``; LeakyReLU 0.2 between, no norm. Weights start as N(0, 0.02), biases as 0.

    Args:
        inputs: channels of what is judged.
        width: channels of the first layer.
        layers: convolutions of stride 2.
    """

    def __init__(self, inputs: int, width: int = 64, layers: int = 4) -> None:
        hidden = _strided(inputs, width, layers, "reflect")
        super().__init__(hidden, nn.Conv2d(width * 2 ** (layers - 1), 1, 1))
        normal_weights(self)
        zero_biases(self)


class PatchDiscriminator(PatchwiseDiscriminator):
    """PatchGAN (Isola et al. 2017): 4x4 convolutions, ``layers`` of stride 2, then two of stride 1.

    Channels double from ``width`` up to 8 times it. Instance norm without affine values on all but the first and the
    last layer; LeakyReLU 0.2. With three strided layers a score sees 70x70 pixels. Weights start as N(0, 0.02).

    Args:
        inputs: channels of what is judged.
        width: channels of the first layer.
        layers: convolutions of stride 2.
        padding: 2 in pix2pixHD (hence LDR's D_k), 1 in pix2pix and CycleGAN.
    """

    def __init__(self, inputs: int, width: int = 64, layers: int = 3, padding: int = 2) -> None:
        widths = [inputs, *(width * min(2**i, 8) for i in range(layers + 1))]
        hidden = [nn.Sequential(_convolution(inputs, width, 2, padding), _leaky())]
        for i in range(1, layers + 1):
            convolution = _convolution(widths[i], widths[i + 1], 2 if i < layers else 1, padding)
            hidden.append(nn.Sequential(convolution, nn.InstanceNorm2d(widths[i + 1]), _leaky()))
        super().__init__(hidden, _convolution(widths[-1], 1, 1, padding))
        normal_weights(self)


class MultiScaleDiscriminator(Discriminator):
    """Discriminators of one architecture on an image pyramid (pix2pixHD; LDR section 3.4).

    Each scale halves the one before it by 3x3 average pooling of stride 2 that leaves the padding out of its means.

    Args:
        make: builds one scale's discriminator, with initial values of its own.
        scales: of the pyramid; 3 in LDR, 2 in pix2pixHD's options.
    """

    def __init__(self, make: Callable[[], Discriminator], scales: int = 3) -> None:
        super().__init__()
        self.scales = nn.ModuleList(make() for _ in range(scales))
        self.halve = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Verdict:
        verdicts: list[Verdict] = []
        for number, discriminator in enumerate(self.scales):
            x = self.halve(x) if number else x
            verdicts.append(discriminator(x))
        scores = tuple(score for verdict in verdicts for score in verdict.scores)
        return Verdict(scores, tuple(features for verdict in verdicts for features in verdict.features))

    def grids(self, size: Size) -> tuple[tuple[Size, ...], ...]:
        grids: list[tuple[Size, ...]] = []
        for discriminator in self.scales:
            assert isinstance(discriminator, Discriminator)
            grids += discriminator.grids(size)
            size = Size(*(-(-side // 2) for side in size))
        return tuple(grids)


def _convolution(inputs: int, outputs: int, stride: int, padding: int, beyond: Beyond = "zeros") -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=stride, padding=padding, padding_mode=beyond)


def _strided(inputs: int, width: int, layers: int, beyond: Beyond = "zeros") -> list[nn.Sequential]:
    """Hidden layers of stride 2 and padding 1, without norms, whose channels double from ``width``."""
    widths = [inputs, *(width * 2**i for i in range(layers))]
    return [nn.Sequential(_convolution(before, after, 2, 1, beyond), _leaky()) for before, after in pairwise(widths)]


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)


def _side(side: int, convolution: nn.Conv2d) -> int:
    padding = convolution.padding[0]
    assert isinstance(padding, int)
    return (side + 2 * padding - convolution.kernel_size[0]) // convolution.stride[0] + 1
