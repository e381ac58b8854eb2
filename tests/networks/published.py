"""Names and shapes of published checkpoints, as their code writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
MIT_B5 = (64, 128, 320, 512), (3, 6, 40, 3)
"""Widths and depths."""
RESNET101 = (3, 4, 23, 3)
WIDTHS, DEPTHS, REDUCTIONS = (32, 64, 160, 256), (2, 2, 2, 2), (8, 4, 2, 1)
BLOCKS = (1, 2, 1, 1)


def values(shapes: Shapes) -> dict[str, Tensor]:
    """Each entry holds a number of its own."""
    return {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(shapes.items(), start=1)}


def random_values(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """What a network can be run with: small numbers, variances of 1."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.ones(shape) if name.endswith("running_var") else 0.1 * torch.randn(shape, generator=rng)
        for name, shape in shapes.items()
    }


def norm(name: str, width: int, batch: bool = False) -> Shapes:
    kinds = ("weight", "bias", "running_mean", "running_var") if batch else ("weight", "bias")
    return {f"{name}.{kind}": (width,) for kind in kinds}


def resnet_layers(blocks: Sequence[int] = BLOCKS) -> Iterator[Shapes]:
    """layer1 to layer4 as torchvision, mmsegmentation and the DeepLab files all name them."""
    inputs = 64
    for stage, depth in enumerate(blocks):
        width = 64 * 2**stage
        for i in range(depth):
            block = f"layer{stage + 1}.{i}"
            sizes = (inputs, width, 1), (width, width, 3), (width, 4 * width, 1)
            for j, (before, after, kernel) in enumerate(sizes, start=1):
                yield {f"{block}.conv{j}.weight": (after, before, kernel, kernel)}
                yield norm(f"{block}.bn{j}", after, batch=True)
            if i == 0:
                yield {f"{block}.downsample.0.weight": (4 * width, inputs, 1, 1)}
                yield norm(f"{block}.downsample.1", 4 * width, batch=True)
            inputs = 4 * width


def torchvision_resnet() -> Shapes:
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64, batch=True)}
    for part in resnet_layers():
        shapes |= part
    return shapes | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def mmseg_resnet(blocks: Sequence[int] = BLOCKS) -> Shapes:
    shapes: Shapes = {}
    for layer, (outputs, inputs) in {0: (32, 3), 3: (32, 32), 6: (64, 32)}.items():
        shapes[f"stem.{layer}.weight"] = (outputs, inputs, 3, 3)
        shapes |= norm(f"stem.{layer + 1}", outputs, batch=True)
    for part in resnet_layers(blocks):
        shapes |= part
    return shapes | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def deeplab_resnet(*heads: tuple[str, int]) -> Shapes:
    shapes = {name: shape for name, shape in torchvision_resnet().items() if not name.startswith("fc.")}
    for head, inputs in heads:
        for i in range(4):
            shapes |= {
                f"{head}.conv2d_list.{i}.weight": (19, inputs, 3, 3),
                f"{head}.conv2d_list.{i}.bias": (19,),
            }
    return shapes


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def convolution(name: str, outputs: int, inputs: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def official_mit(widths: Sequence[int] = WIDTHS, depths: Sequence[int] = DEPTHS) -> Shapes:
    shapes: Shapes = {}
    for i, (width, depth, reduction) in enumerate(zip(widths, depths, REDUCTIONS, strict=True)):
        inputs, kernel = (3, 7) if i == 0 else (widths[i - 1], 3)
        shapes |= convolution(f"patch_embed{i + 1}.proj", width, inputs, kernel) | norm(
            f"patch_embed{i + 1}.norm", width
        )
        for j in range(depth):
            block = f"block{i + 1}.{j}"
            shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
            shapes |= linear(f"{block}.attn.q", width, width) | linear(f"{block}.attn.kv", 2 * width, width)
            shapes |= linear(f"{block}.attn.proj", width, width)
            if reduction > 1:
                shapes |= convolution(f"{block}.attn.sr", width, width, reduction) | norm(f"{block}.attn.norm", width)
            shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
            shapes |= convolution(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3)
        shapes |= norm(f"norm{i + 1}", width)
    return shapes


def hugging_face_mit() -> Shapes:
    shapes: Shapes = {}
    for i, (width, depth, reduction) in enumerate(zip(WIDTHS, DEPTHS, REDUCTIONS, strict=True)):
        inputs, kernel = (3, 7) if i == 0 else (WIDTHS[i - 1], 3)
        shapes |= convolution(f"encoder.patch_embeddings.{i}.proj", width, inputs, kernel)
        shapes |= norm(f"encoder.patch_embeddings.{i}.layer_norm", width)
        for j in range(depth):
            block = f"encoder.block.{i}.{j}"
            shapes |= norm(f"{block}.layer_norm_1", width) | norm(f"{block}.layer_norm_2", width)
            for part in ("query", "key", "value"):
                shapes |= linear(f"{block}.attention.self.{part}", width, width)
            shapes |= linear(f"{block}.attention.output.dense", width, width)
            if reduction > 1:
                shapes |= convolution(f"{block}.attention.self.sr", width, width, reduction)
                shapes |= norm(f"{block}.attention.self.layer_norm", width)
            shapes |= linear(f"{block}.mlp.dense1", 4 * width, width) | linear(f"{block}.mlp.dense2", width, 4 * width)
            shapes |= convolution(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3)
        shapes |= norm(f"encoder.layer_norm.{i}", width)
    return {f"segformer.{name}": shape for name, shape in shapes.items()} | {"classifier.weight": (1000, 256)}


def daformer_head(prefix: str, classes: int = 19, widths: Sequence[int] = WIDTHS) -> Shapes:
    shapes: Shapes = {}
    for i, width in enumerate(widths):
        shapes |= linear(f"{prefix}.embed_layers.{i}.proj", 256, width)
    aspp = f"{prefix}.fuse_layer.aspp_modules"
    shapes |= {f"{aspp}.0.conv.weight": (256, 1024, 1, 1), **norm(f"{aspp}.0.bn", 256, batch=True)}
    for i in (1, 2, 3):
        shapes |= {f"{aspp}.{i}.depthwise_conv.conv.weight": (1024, 1, 3, 3)}
        shapes |= norm(f"{aspp}.{i}.depthwise_conv.bn", 1024, batch=True)
        shapes |= {f"{aspp}.{i}.pointwise_conv.conv.weight": (256, 1024, 1, 1)}
        shapes |= norm(f"{aspp}.{i}.pointwise_conv.bn", 256, batch=True)
    shapes |= {f"{prefix}.fuse_layer.bottleneck.conv.weight": (256, 1024, 3, 3)}
    shapes |= norm(f"{prefix}.fuse_layer.bottleneck.bn", 256, batch=True)
    return shapes | convolution(f"{prefix}.conv_seg", classes, 256, 1)


def hrda_attention(prefix: str, classes: int = 19, widths: Sequence[int] = WIDTHS) -> Shapes:
    shapes: Shapes = {}
    for i, width in enumerate(widths):
        shapes |= linear(f"{prefix}.embed_layers.{i}.proj", 256, width)
    shapes |= {f"{prefix}.fuse_layer.conv.weight": (256, 1024, 1, 1)} | norm(f"{prefix}.fuse_layer.bn", 256, batch=True)
    return shapes | convolution(f"{prefix}.conv_seg", classes, 256, 1)


def deeplab_head(prefix: str, branches: int, classes: int = 19) -> Shapes:
    shapes: Shapes = {}
    for i in range(branches):
        shapes |= convolution(f"{prefix}.aspp_modules.{i}.conv", classes, 2048, 3)
    return shapes


def daformer(mit: tuple[Sequence[int], Sequence[int]] = (WIDTHS, DEPTHS)) -> Shapes:
    """One model of a DAFormer checkpoint."""
    return under("backbone.", official_mit(*mit)) | daformer_head("decode_head", widths=mit[0])


def hrda(mit: tuple[Sequence[int], Sequence[int]] = (WIDTHS, DEPTHS)) -> Shapes:
    """One model of an HRDA or MIC checkpoint."""
    heads = daformer_head("decode_head.head", widths=mit[0]) | hrda_attention(
        "decode_head.scale_attention", widths=mit[0]
    )
    return under("backbone.", official_mit(*mit)) | heads


def models(model: Shapes, *names: str, seed: int = 0) -> dict[str, Tensor]:
    """The same model under several names (``model``, ``ema_model``, ``imnet_model``), each with values of its own."""
    state: dict[str, Tensor] = {}
    for number, name in enumerate(names):
        state |= random_values(under(f"{name}.", model), seed + number)
    return state


def under(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}
