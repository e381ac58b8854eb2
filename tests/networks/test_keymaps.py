"""Key maps on state dicts generated from the published names and shapes: every value arrives, in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import (
    BLOCKS,
    daformer_head,
    deeplab_resnet,
    hrda_attention,
    hugging_face_mit,
    linear,
    mmseg_resnet,
    official_mit,
    torchvision_resnet,
    under,
    values,
)

from udabench.errors import CheckpointError
from udabench.networks.build import build_network
from udabench.networks.keymaps import KEYMAPS, deeplab_network, mit_names, mmseg_network, resnet_names
from udabench.networks.mit import MitB0
from udabench.networks.resnet import ResNet, ResNet50
from udabench.networks.weights import WeightsReport, load_network, load_state
from udabench.registry import Registry


class Tiny(ResNet):
    blocks = BLOCKS
    published = ResNet50.published


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
    shapes |= hrda_attention(attention)
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
