"""Key maps on state dicts generated from the published names and shapes: every value arrives, in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from udabench.errors import CheckpointError
from udabench.networks.build import build_network
from udabench.networks.keymaps import KEYMAPS, deeplab_network, mit_names, mmseg_network, resnet_names
from udabench.networks.mit import MitB0
from udabench.networks.resnet import ResNet, ResNet50
from udabench.networks.weights import WeightsReport, load_network, load_state
from udabench.registry import Registry

Shapes = dict[str, tuple[int, ...]]
WIDTHS, DEPTHS, REDUCTIONS = (32, 64, 160, 256), (2, 2, 2, 2), (8, 4, 2, 1)
BLOCKS = (1, 2, 1, 1)


class Tiny(ResNet):
    blocks = BLOCKS
    published = ResNet50.published


def values(shapes: Shapes) -> dict[str, Tensor]:
    """Each entry holds a number of its own."""
    return {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(shapes.items(), start=1)}


def norm(name: str, width: int, batch: bool = False) -> Shapes:
    kinds = ("weight", "bias", "running_mean", "running_var") if batch else ("weight", "bias")
    return {f"{name}.{kind}": (width,) for kind in kinds}


def resnet_layers() -> Iterator[Shapes]:
    """layer1 to layer4 as torchvision, mmsegmentation and the DeepLab files all name them."""
    inputs = 64
    for stage, depth in enumerate(BLOCKS):
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


def mmseg_resnet() -> Shapes:
    shapes: Shapes = {}
    for layer, (outputs, inputs) in {0: (32, 3), 3: (32, 32), 6: (64, 32)}.items():
        shapes[f"stem.{layer}.weight"] = (outputs, inputs, 3, 3)
        shapes |= norm(f"stem.{layer + 1}", outputs, batch=True)
    for part in resnet_layers():
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


def official_mit() -> Shapes:
    shapes: Shapes = {}
    for i, (width, depth, reduction) in enumerate(zip(WIDTHS, DEPTHS, REDUCTIONS, strict=True)):
        inputs, kernel = (3, 7) if i == 0 else (WIDTHS[i - 1], 3)
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


def daformer_head(prefix: str, classes: int = 19) -> Shapes:
    shapes: Shapes = {}
    for i, width in enumerate(WIDTHS):
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


def under(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def arrived(report: WeightsReport, unexpected: set[str]) -> None:
    assert report.missing == ()
    assert set(report.unexpected) == unexpected


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
def test_resnets_of_torchvision_and_mmsegmentation(prefix: str) -> None:
    fc = {"fc.weight", "fc.bias"}
    published = values(under(prefix, torchvision_resnet()))
    backbone = Tiny()
    arrived(load_state(backbone, resnet_names(published), "torchvision"), fc)
    assert torch.equal(
        backbone.state_dict()["layer2.1.bn3.running_var"], published[prefix + "layer2.1.bn3.running_var"]
    )
    arrived(load_state(Tiny(lineage="mmseg"), resnet_names(values(under(prefix, mmseg_resnet()))), "mmseg"), fc)


@pytest.mark.parametrize("prefix", ["", "Scale."])
def test_resnet_of_adaptsegnet_and_advent(prefix: str) -> None:
    published = values(under(prefix, deeplab_resnet(("layer5", 2048))))
    backbone = Tiny(lineage="caffe")
    report = load_state(backbone, resnet_names(published), "deeplab")
    arrived(report, {f"layer5.conv2d_list.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")})
    assert torch.equal(backbone.state_dict()["conv1.weight"], published[prefix + "conv1.weight"])


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
def test_official_mit(prefix: str) -> None:
    published = values(under(prefix, official_mit() | linear("head", 1000, 256)))
    arrived(load_state(MitB0(), mit_names(published), "official"), {"head.weight", "head.bias"})


def test_hugging_face_mit() -> None:
    published = values(hugging_face_mit())
    backbone = MitB0()
    load_state(backbone, mit_names(published), "hugging face")
    block = "segformer.encoder.block.2.1"
    pairs = {
        "patch_embed3.proj.weight": "segformer.encoder.patch_embeddings.2.proj.weight",
        "patch_embed3.norm.bias": "segformer.encoder.patch_embeddings.2.layer_norm.bias",
        "block3.1.norm1.weight": f"{block}.layer_norm_1.weight",
        "block3.1.norm2.weight": f"{block}.layer_norm_2.weight",
        "block3.1.attn.q.weight": f"{block}.attention.self.query.weight",
        "block3.1.attn.proj.weight": f"{block}.attention.output.dense.weight",
        "block3.1.attn.norm.weight": f"{block}.attention.self.layer_norm.weight",
        "block3.1.mlp.fc2.weight": f"{block}.mlp.dense2.weight",
        "norm3.weight": "segformer.encoder.layer_norm.2.weight",
    }
    state = backbone.state_dict()
    for ours, theirs in pairs.items():
        assert torch.equal(state[ours], published[theirs]), ours
    kv = state["block3.1.attn.kv.weight"]
    assert torch.equal(kv[:160], published[f"{block}.attention.self.key.weight"])
    assert torch.equal(kv[160:], published[f"{block}.attention.self.value.weight"])


def test_daformer_checkpoint(registry: Registry, tmp_path: Path) -> None:
    """Student, teacher and ImageNet encoder lie side by side in one file."""
    network = under("backbone.", official_mit()) | daformer_head("decode_head")
    shapes = under("model.", network) | under("ema_model.", network) | under("imnet_model.", network)
    published = values(shapes)
    torch.save({"state_dict": published, "meta": {"iter": 40000}}, tmp_path / "latest.pth")
    built = build_network(registry, "mit_b0-daformer", 19, "none")
    pairs = {
        "head.embeds.2.weight": "decode_head.embed_layers.2.proj.weight",
        "head.aspp.0.conv.weight": "decode_head.fuse_layer.aspp_modules.0.conv.weight",
        "head.aspp.3.depthwise.bn.running_mean": "decode_head.fuse_layer.aspp_modules.3.depthwise_conv.bn.running_mean",
        "head.aspp.2.pointwise.conv.weight": "decode_head.fuse_layer.aspp_modules.2.pointwise_conv.conv.weight",
        "head.fuse.bn.weight": "decode_head.fuse_layer.bottleneck.bn.weight",
        "head.classifier.bias": "decode_head.conv_seg.bias",
        "backbone.block1.1.attn.kv.bias": "backbone.block1.1.attn.kv.bias",
    }
    for keymap, prefix in (("mmseg", "model."), ("mmseg-teacher", "ema_model.")):
        arrived(load_network(built, tmp_path / "latest.pth", KEYMAPS[keymap]), set())
        for ours, theirs in pairs.items():
            expected = published[prefix + theirs]
            assert torch.equal(built.state_dict()[ours].reshape(expected.shape), expected), ours


def test_hrda_checkpoint(registry: Registry, tmp_path: Path) -> None:
    """The network inside, and the attention beside it."""
    attention = "decode_head.scale_attention"
    shapes = under("backbone.", official_mit()) | daformer_head("decode_head.head")
    for i, width in enumerate(WIDTHS):
        shapes |= linear(f"{attention}.embed_layers.{i}.proj", 256, width)
    shapes |= {f"{attention}.fuse_layer.conv.weight": (256, 1024, 1, 1)}
    shapes |= norm(f"{attention}.fuse_layer.bn", 256, batch=True) | convolution(f"{attention}.conv_seg", 19, 256, 1)
    torch.save(values(under("model.", shapes)), tmp_path / "hrda.pth")
    built = build_network(registry, "hrda:mit_b0-daformer", 19, "none")
    arrived(load_network(built, tmp_path / "hrda.pth", mmseg_network), set())
    published = values(under("model.", shapes))
    pairs = {
        "inner.head.fuse.conv.weight": "decode_head.head.fuse_layer.bottleneck.conv.weight",
        "scale_attention.fuse.conv.weight": f"{attention}.fuse_layer.conv.weight",
        "inner.backbone.norm4.bias": "backbone.norm4.bias",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(built.state_dict()[ours], published[f"model.{theirs}"]), ours


def test_a_checkpoint_without_teacher() -> None:
    with pytest.raises(CheckpointError, match="no teacher"):
        KEYMAPS["mmseg-teacher"](values(under("model.", daformer_head("decode_head"))))


def test_mmsegmentation_deeplab_head() -> None:
    shapes = {f"decode_head.aspp_modules.{i}.conv.{kind}": (2,) for i in range(2) for kind in ("weight", "bias")}
    renamed = mmseg_network(values(shapes))
    assert set(renamed) == {f"head.branches.{i}.{kind}" for i in range(2) for kind in ("weight", "bias")}


def test_adaptsegnet_networks() -> None:
    """Multi-level: layer6 is the head and layer5 the auxiliary one; single-level: layer5 is the head."""
    multi = deeplab_network(values(deeplab_resnet(("layer5", 1024), ("layer6", 2048))))
    assert multi["head.branches.3.weight"].shape == (19, 2048, 3, 3)
    assert multi["auxiliary_head.branches.0.weight"].shape == (19, 1024, 3, 3)
    single = deeplab_network(values(deeplab_resnet(("layer5", 2048))))
    assert single["head.branches.3.weight"].shape == (19, 2048, 3, 3)
    assert "backbone.layer4.0.conv1.weight" in single
    assert not any(name.startswith("layer") for name in (*multi, *single))
