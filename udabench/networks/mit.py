"""Mix Transformers B0 to B5, the encoders of SegFormer (Xie et al. 2021) and DAFormer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torchvision.ops import StochasticDepth

from udabench.errors import UsageError
from udabench.network import Backbone, WeightsReport
from udabench.networks.keymaps import mit_names
from udabench.networks.weights import Published, find, load_weights

_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_STAGE_EPS = 1e-6
"""Of the norms inside blocks and after each stage. Those of patch embeddings and of the reduction keep 1e-5."""


class PatchEmbedding(nn.Module):
    """Overlapping patches: a strided convolution and a layer norm. N C H W -> N L D tokens, and their grid."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(image)
        return self.norm(x.flatten(2).transpose(1, 2)), (x.shape[2], x.shape[3])


class Attention(nn.Module):
    """Self-attention whose keys and values come from a grid reduced by a strided convolution (Eq 1 and 2)."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.sr = nn.Conv2d(width, width, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(width, eps=1e-5) if reduction > 1 else None

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        query = self._split(self.q(tokens))
        key, value = self.kv(self._reduce(tokens, grid)).chunk(2, dim=-1)
        mixed = scaled_dot_product_attention(query, self._split(key), self._split(value))
        attended: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return attended

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _reduce(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.sr is None or self.norm is None:
            return tokens
        reduced: Tensor = self.norm(self.sr(_to_map(tokens, grid)).flatten(2).transpose(1, 2))
        return reduced


class DepthwiseConv(nn.Module):
    """A depthwise 3x3 over tokens: where positions leak in through the zero padding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        mixed: Tensor = self.dwconv(_to_map(tokens, grid)).flatten(2).transpose(1, 2)
        return mixed


class MixFeedForward(nn.Module):
    """Mix-FFN (Eq 3): linear, depthwise 3x3, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        out: Tensor = self.fc2(self.act(self.dwconv(self.fc1(tokens), grid)))
        return out


class Block(nn.Module):
    """Pre-norm attention and Mix-FFN, each on a residual that stochastic depth may drop."""

    def __init__(self, width: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_STAGE_EPS)
        self.attn = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=_STAGE_EPS)
        self.mlp = MixFeedForward(width, 4 * width)
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), grid))
        out: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens), grid))
        return out


class MixTransformer(Backbone):
    """Four stages with maps at 1/4, 1/8, 1/16 and 1/32. Parameters are named as in the published files.

    Options: ``drop_path``, the last block's chance of being skipped, growing linearly from 0 over the depth.
    Weights: ``imagenet`` (the ImageNet-1k encoder on Hugging Face), a file with the official, Hugging Face's or
    mmsegmentation's names, or ``none``.
    """

    variant: ClassVar[str]
    depths: ClassVar[tuple[int, int, int, int]]
    strides = (4, 8, 16, 32)

    def __init__(self, argument: str = "", *, drop_path: float = 0.1) -> None:
        super().__init__()
        if argument:
            raise UsageError(f"Backbone mit_{self.variant} takes no argument, but got '{argument}'.")
        if not 0 <= drop_path < 1:
            raise UsageError(f"Option drop_path is {drop_path}; use 0 <= drop_path < 1.")
        rates = iter(torch.linspace(0, drop_path, sum(self.depths), device="cpu").tolist())
        inputs = 3
        for stage, width in enumerate(self.channels):
            kernel, stride = (7, 4) if stage == 0 else (3, 2)
            blocks = [Block(width, _HEADS[stage], _REDUCTIONS[stage], next(rates)) for _ in range(self.depths[stage])]
            self.add_module(f"patch_embed{stage + 1}", PatchEmbedding(inputs, width, kernel, stride))
            self.add_module(f"block{stage + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(width, eps=_STAGE_EPS))
            inputs = width
        self.apply(_initialise)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        for stage in range(1, 5):
            tokens, grid = self.get_submodule(f"patch_embed{stage}")(maps[-1] if maps else image)
            for block in self.get_submodule(f"block{stage}").children():
                tokens = block(tokens, grid)
            maps.append(_to_map(self.get_submodule(f"norm{stage}")(tokens), grid))
        return tuple(maps)

    def load_weights(self, weights: str) -> WeightsReport:
        return load_weights(self, weights, self._published(), mit_names)

    def weights_path(self, weights: str) -> Path | None:
        return find(weights, self._published())

    def _published(self) -> Mapping[str, Published]:
        url = f"https://huggingface.co/nvidia/mit-{self.variant}/resolve/main/pytorch_model.bin"
        return {"imagenet": Published(url, f"mit_{self.variant}.pth")}


class MitB0(MixTransformer):
    """3.3 million parameters."""

    variant, depths, channels = "b0", (2, 2, 2, 2), (32, 64, 160, 256)


class MitB1(MixTransformer):
    """13 million parameters."""

    variant, depths, channels = "b1", (2, 2, 2, 2), (64, 128, 320, 512)


class MitB2(MixTransformer):
    """24 million parameters."""

    variant, depths, channels = "b2", (3, 4, 6, 3), (64, 128, 320, 512)


class MitB3(MixTransformer):
    """44 million parameters."""

    variant, depths, channels = "b3", (3, 4, 18, 3), (64, 128, 320, 512)


class MitB4(MixTransformer):
    """61 million parameters."""

    variant, depths, channels = "b4", (3, 8, 27, 3), (64, 128, 320, 512)


class MitB5(MixTransformer):
    """81 million parameters: DAFormer's encoder."""

    variant, depths, channels = "b5", (3, 6, 40, 3), (64, 128, 320, 512)


def _to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """N L D -> N D h w."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid).contiguous()


def _initialise(module: nn.Module) -> None:
    """As the authors do: linear N(0, 0.02) truncated, convolution N(0, 2 / fan-out), no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
