"""UNIT's variational autoencoder of one domain (Liu et al. 2017), in the form of the authors' later code (MUNIT)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from udabench.networks.generator import Generator, ResidualBlock, normed
from udabench.networks.layers import kaiming_weights, zero_biases


class ImageLayerNorm(nn.Module):
    """``gamma * (x - mean) / (std + eps) + beta`` over all channels and positions of each image (MUNIT code).

    Unlike ``nn.GroupNorm(1, channels)`` it divides by the unbiased standard deviation, to which ``eps`` is added
    outside of the root. One gamma and beta a channel; gamma starts as U(0, 1), beta as 0. At least float32.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.rand(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        std, mean = torch.std_mean(x, (1, 2, 3), keepdim=True)
        return (x - mean) / (std + self.eps) * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)


class Autoencoder(Generator):
    """An encoder and a decoder of one domain's images; a translation is what another domain's decoder makes of a code.

    The encoder: a 7x7 stem, ``downs`` 4x4 convolutions of stride 2 that double the channels, residual blocks, instance
    norm without affine values. The decoder: residual blocks of the same kind, ``downs`` times nearest upsampling and a
    5x5 convolution that halves the channels, with :class:`ImageLayerNorm`, a 7x7 convolution, tanh. All convolutions
    pad by reflection. The code is the mean of a normal distribution of variance 1; nothing is drawn here. The encoder's
    weights start as N(0, 2 / fan-in), the decoder's too, biases as 0. No weights are shared between domains: the paper
    shares the layers next to the code, the code none.

    Args:
        channels: of an image.
        width: of the stem.
        downs: how often the grid is halved.
        blocks: residual blocks, as many in the decoder.
    """

    def __init__(self, channels: int = 3, width: int = 64, downs: int = 2, blocks: int = 4) -> None:
        widths = [width * 2**i for i in range(downs + 1)]
        encoder = [*_inwards([channels, *widths]), *(ResidualBlock(widths[-1]) for _ in range(blocks))]
        decoder = [*(ResidualBlock(widths[-1]) for _ in range(blocks)), *_outwards([*widths[::-1], channels])]
        super().__init__(nn.Sequential(*encoder), nn.Sequential(*decoder))
        kaiming_weights(self)
        zero_biases(self)
        # Reflection needs more pixels than it adds: 3 at the ends, 1 in the blocks.
        self.cell, self.smallest = 2**downs, max(4, 2 * 2**downs)

    def encode(self, image: Tensor) -> Tensor:
        """N C H W in [-1, 1] -> the mean of its code, N ``width * 2**downs`` h w."""
        code: Tensor = self[0](image)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """A code -> N C H W in [-1, 1]."""
        image: Tensor = self[1](code)
        return image


def _inwards(widths: list[int]) -> Iterator[nn.Module]:
    yield from normed(_reflected(widths[0], widths[1], 7))
    for before, after in pairwise(widths[1:]):
        yield from normed(nn.Conv2d(before, after, 4, 2, padding=1, padding_mode="reflect"))


def _outwards(widths: list[int]) -> Iterator[nn.Module]:
    for before, after in pairwise(widths[:-1]):
        yield from (nn.Upsample(scale_factor=2), _reflected(before, after, 5), ImageLayerNorm(after))
        yield nn.ReLU(inplace=True)
    yield from (_reflected(widths[-2], widths[-1], 7), nn.Tanh())


def _reflected(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the grid."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")
