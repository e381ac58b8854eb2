"""Generators: a label map or an image in, an image in [-1, 1] out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from udabench.network import Normalization
from udabench.networks.layers import normal_weights
from udabench.size import Size

SIGNED = Normalization("signed", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""RGB in [0, 1] -> [-1, 1], the range of a generator's images and of what their discriminators are shown."""


def unsigned(image: Tensor) -> Tensor:
    """A generator's image in [-1, 1] -> RGB in [0, 1]."""
    return (image + 1) / 2


class Generator(nn.Sequential):
    """N C H W -> N ``outputs`` H W in [-1, 1] (a last tanh).

    Attributes:
        cell: height and width must be multiples of this: how often the grid is halved.
        smallest: least height and width.
    """

    cell: int
    smallest: int

    def why_not(self, size: Size) -> str | None:
        """A reason why maps of this size cannot be taken, or None."""
        if any(side % self.cell for side in size):
            return f"the generator needs sides that are multiples of {self.cell}, but the map is {size}"
        if min(size) < self.smallest:
            return f"the generator needs sides of at least {self.smallest} pixels, but the map is {size}"
        return None


class ResidualBlock(nn.Module):
    """``x + norm(conv(relu(norm(conv(x)))))`` with 3x3 convolutions and instance norm, no activation after the sum.

    Args:
        channels: in and out.
        padding: ``reflect`` keeps the grid; ``none`` shaves 2 off each side (Johnson et al. 2016, supplement).
        affine: whether the norms have values of their own.
    """

    def __init__(self, channels: int, padding: Literal["reflect", "none"] = "reflect", affine: bool = False) -> None:
        super().__init__()
        self.shaved = 0 if padding == "reflect" else 2
        around = [nn.ReflectionPad2d(1)] if padding == "reflect" else []
        self.body = nn.Sequential(
            *around,
            *normed(nn.Conv2d(channels, channels, 3), affine),
            *around,
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2] - self.shaved, x.shape[-1] - self.shaved
        out: Tensor = x[..., self.shaved : height, self.shaved : width] + self.body(x)
        return out


class GlobalGenerator(Generator):
    """pix2pixHD's global generator (Wang et al. 2018); with ``downs`` 2 and 3 input channels, CycleGAN's.

    A 7x7 stem, ``downs`` 3x3 convolutions of stride 2 that double the channels, residual blocks, as many 3x3
    transposed convolutions of stride 2, a 7x7 convolution, tanh. Stem, blocks and the end pad by reflection. Instance
    norm without affine values. Weights start as N(0, 0.02). LDR's M, as we read its section 4.2.

    Args:
        inputs: channels in: the classes of a one-hot label map, 3 of an image.
        outputs: channels out.
        width: of the stem.
        downs: how often the grid is halved; 3 in the class, 4 in pix2pixHD's options.
        blocks: residual blocks.
    """

    def __init__(self, inputs: int, outputs: int = 3, width: int = 64, downs: int = 3, blocks: int = 9) -> None:
        widths = [width * 2**i for i in range(downs + 1)]
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(inputs, width, 7))]
        for before, after in pairwise(widths):
            layers += normed(nn.Conv2d(before, after, 3, stride=2, padding=1))
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        layers += _upwards(widths)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]
        super().__init__(*layers)
        normal_weights(self)
        # Reflection needs more pixels than it adds: 3 at the stem, 1 in the blocks.
        self.cell, self.smallest = 2**downs, max(4, 2 * 2**downs)


class TransformerNetwork(Generator):
    """The image transformation network of Johnson et al. 2016 (supplement, Table 1).

    Reflection by as much as the blocks will shave off, a 9x9 convolution, two 3x3 of stride 2, residual blocks
    without padding, two 3x3 transposed of stride 2, a 9x9 convolution, tanh; other convolutions pad with zeros.
    Instance norm with affine values, as the authors' code has it by default (batch norm in the paper); PyTorch's own
    initial values, which for convolutions are those of the authors' library.

    Args:
        inputs: channels in.
        outputs: channels out.
        width: of the first convolution.
        blocks: residual blocks; 5 in the paper, 9 in LDR's section 4.2.
    """

    def __init__(self, inputs: int, outputs: int = 3, width: int = 32, blocks: int = 5) -> None:
        # Two convolutions a block shave off 2 pixels a side, of a grid of stride 4.
        margin = blocks * 2 * 4
        widths = [width, 2 * width, 4 * width]
        layers: list[nn.Module] = [nn.ReflectionPad2d(margin)]
        layers += normed(nn.Conv2d(inputs, width, 9, padding=4), affine=True)
        for before, after in pairwise(widths):
            layers += normed(nn.Conv2d(before, after, 3, stride=2, padding=1), affine=True)
        layers += [ResidualBlock(widths[-1], "none", affine=True) for _ in range(blocks)]
        layers += _upwards(widths, affine=True)
        layers += [nn.Conv2d(width, outputs, 9, padding=4), nn.Tanh()]
        super().__init__(*layers)
        self.cell, self.smallest = 4, margin + 4


def one_hot(label: Tensor, classes: int) -> Tensor:
    """N H W ids -> N C H W float32; all zeros where the id is no class (255), so that nothing is claimed there."""
    ids = torch.arange(classes, device=label.device).view(1, -1, 1, 1)
    return (label.unsqueeze(1) == ids).float()


def normed(convolution: nn.Conv2d | nn.ConvTranspose2d, affine: bool = False) -> list[nn.Module]:
    """The convolution, instance norm, ReLU."""
    return [convolution, nn.InstanceNorm2d(convolution.out_channels, affine=affine), nn.ReLU(inplace=True)]


def _upwards(widths: list[int], affine: bool = False) -> Iterator[nn.Module]:
    """Transposed convolutions from the last width to the first, each of which doubles the grid exactly."""
    for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True):
        yield from normed(nn.ConvTranspose2d(before, after, 3, 2, padding=1, output_padding=1), affine)
