"""timm's feature extractors as backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from udabench.errors import CheckpointError, UsageError
from udabench.network import TORCH
from udabench.networks import weights
from udabench.networks.timm_backbone import TimmBackbone


def test_pyramid_starts_at_a_quarter() -> None:
    backbone = TimmBackbone("resnet10t").eval()
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert backbone.strides == (4, 8, 16, 32)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]


def test_dilated() -> None:
    backbone = TimmBackbone("resnet10t", output_stride=8).eval()
    assert backbone.strides == (4, 8, 8, 8)
    assert backbone(torch.rand(1, 3, 64, 64))[-1].shape[-2:] == (8, 8)


def test_channels_come_first_in_every_model() -> None:
    """timm's Swin keeps channels last."""
    backbone = TimmBackbone("swin_tiny_patch4_window7_224").eval()
    maps = backbone(torch.rand(1, 3, 224, 224))
    assert [m.shape[1] for m in maps] == [96, 192, 384, 768]
    assert [m.shape[2] for m in maps] == [56, 28, 14, 7]


def test_published_weights_are_found_and_cover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file as timm publishes it, with its classifier, under names that timm flattens when it extracts features."""
    name = "convnext_atto.d2_in1k"
    published = timm.create_model(name).state_dict()
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    save_file(published, tmp_path / f"timm_{name}.safetensors")
    backbone = TimmBackbone(name)
    assert backbone.weights_path("imagenet") == tmp_path / f"timm_{name}.safetensors"
    report = backbone.load_weights("imagenet")
    assert report.coverage == 1
    assert len(report.digest) == 64
    assert torch.equal(
        backbone.body.state_dict()["stages_2.blocks.5.mlp.fc1.weight"], published["stages.2.blocks.5.mlp.fc1.weight"]
    )
    again = TimmBackbone(name)
    assert again.load_weights(str(tmp_path / f"timm_{name}.safetensors")).coverage == 1
    assert backbone.normalization == TORCH


def test_another_models_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "timm_convnext_atto.d2_in1k.safetensors")
    backbone = TimmBackbone("convnext_atto.d2_in1k")
    with pytest.raises(CheckpointError, match="convnext_atto"):
        backbone.load_weights("imagenet")
    with pytest.raises(CheckpointError, match="cover"):
        backbone.load_weights(str(tmp_path / "timm_convnext_atto.d2_in1k.safetensors"))


def test_own_normalisation() -> None:
    assert TimmBackbone("vit_tiny_patch16_224").normalization.mean == (0.5, 0.5, 0.5)


def test_models_that_cannot() -> None:
    with pytest.raises(UsageError, match="Unknown timm model 'resnet19'"):
        TimmBackbone("resnet19")
    with pytest.raises(UsageError, match="output_stride 8"):
        TimmBackbone("vit_tiny_patch16_224", output_stride=8)
