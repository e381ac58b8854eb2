"""Heads against float64 arithmetic written out here, and against transformers' SegFormer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.errors import UsageError
from udabench.networks.daformer import DAFormerHead
from udabench.networks.deeplabv2 import DeepLabV2Head
from udabench.networks.light import LightHead

CHANNELS, STRIDES = (8, 16, 24, 32), (4, 8, 16, 32)


def pyramid(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, c, 64 // s, 96 // s, dtype=dtype) for c, s in zip(CHANNELS, STRIDES, strict=True)]


def randomise_norms(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1, 0.2)
            nn.init.normal_(norm.bias, 0, 0.2)
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)


def conv_bn_relu(x: Tensor, state: dict[str, Tensor], name: str, padding: int = 0, **kind: int) -> Tensor:
    """Convolution, then y = w * (x - mean) / sqrt(var + 1e-5) + b, then max(0, y)."""
    x = F.conv2d(x, state[f"{name}.conv.weight"], padding=padding, **kind)
    mean, var, weight, bias = (
        state[f"{name}.bn.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (weight * (x - mean) / (var + 1e-5).sqrt() + bias).clamp(min=0)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("branch", range(4))
def test_every_dilation_of_deeplab_counts(branch: int) -> None:
    """The ``return`` inside the loop of well-known code leaves out all but the first two."""
    head = DeepLabV2Head(CHANNELS, STRIDES, 5)
    features = pyramid()
    before = head(features)
    with torch.no_grad():
        head.branches[branch].weight += 0.1
    assert not torch.allclose(before, head(features))


def test_deeplab_is_the_sum_of_dilated_convolutions() -> None:
    head = DeepLabV2Head(CHANNELS, STRIDES, 5).double()
    for branch in head.branches:
        nn.init.normal_(branch.bias)
    features = [torch.randn(1, c, 40, 40, dtype=torch.float64) for c in CHANNELS]
    expected = sum(
        F.conv2d(features[-1], branch.weight, branch.bias, padding=d, dilation=d)
        for branch, d in zip(head.branches, (6, 12, 18, 24), strict=True)
    )
    torch.testing.assert_close(head(features), expected)
    assert head.output_stride == 32


def test_deeplab_starts_small() -> None:
    head = DeepLabV2Head((256,), (8,), 19)
    for branch in head.branches:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert branch.weight.mean().item() == pytest.approx(0, abs=5e-4)


@pytest.mark.parametrize(
    ("given", "meant"), [("adaptsegnet-legacy", (6, 12)), ("deeplab", (6, 12, 18, 24)), ([1, 3], (1, 3))]
)
def test_dilations_by_name_or_list(given: str | list[int], meant: tuple[int, ...]) -> None:
    head = DeepLabV2Head((4,), (8,), 2, dilations=given)
    assert tuple(branch.dilation[0] for branch in head.branches) == meant
    assert all(branch.padding == branch.dilation for branch in head.branches)


@pytest.mark.parametrize("bad", ["legacy", [], [0], [1.5]])
def test_bad_dilations(bad: object) -> None:
    with pytest.raises(UsageError, match="dilations"):
        DeepLabV2Head((4,), (8,), 2, dilations=bad)  # type: ignore[arg-type]


def test_daformer_embedding_equals_segformers() -> None:
    """Linear layer a level, resized to the finest grid: what transformers' decode head fuses, in its reversed order."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(hidden_sizes=list(CHANNELS), decoder_hidden_size=10, num_labels=3)
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    theirs = SegformerDecodeHead(config).eval()
    ours = DAFormerHead(CHANNELS, STRIDES, 3, width=10)
    layers = getattr(theirs, "linear_projections", None) or theirs.linear_c
    for mine, layer in zip(ours.embeds, layers, strict=True):
        mine.load_state_dict({"weight": layer.proj.weight[:, :, None, None], "bias": layer.proj.bias})
    seen: list[Tensor] = []
    theirs.linear_fuse.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    features = pyramid()
    with torch.no_grad():
        theirs(tuple(features))
        reversed_levels = torch.cat(ours.embed(features).split(10, dim=1)[::-1], dim=1)
    torch.testing.assert_close(reversed_levels, seen[0], rtol=1e-5, atol=1e-5)


def test_daformer_aspp_in_float64() -> None:
    head = DAFormerHead(CHANNELS, STRIDES, 5, width=6).double().eval()
    randomise_norms(head)
    features = pyramid(torch.float64)
    state = head.state_dict()
    joined = torch.cat(
        [
            resized(F.conv2d(x, state[f"embeds.{i}.weight"], state[f"embeds.{i}.bias"]), (16, 24))
            for i, x in enumerate(features)
        ],
        dim=1,
    )
    branches = [conv_bn_relu(joined, state, "aspp.0")]
    for i, dilation in ((1, 6), (2, 12), (3, 18)):
        deep = conv_bn_relu(joined, state, f"aspp.{i}.depthwise", dilation, dilation=dilation, groups=24)
        branches.append(conv_bn_relu(deep, state, f"aspp.{i}.pointwise"))
    fused = conv_bn_relu(torch.cat(branches, dim=1), state, "fuse", 1)
    expected = F.conv2d(fused, state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(head(features), expected)


def test_daformer_has_the_published_width_and_drops_whole_channels() -> None:
    head = DAFormerHead(CHANNELS, STRIDES, 5)
    assert head.fuse.conv.weight.shape == (256, 1024, 3, 3)
    assert (type(head.dropout), head.dropout.p) == (nn.Dropout2d, 0.1)
    assert head.output_stride == 4
    assert head.classifier.bias.abs().max() == 0


def test_light_in_float64() -> None:
    """Top-down sums: each level is added to the next finer one's projection after resizing."""
    head = LightHead(CHANNELS, STRIDES, 5, width=6).double().eval()
    randomise_norms(head)
    features = pyramid(torch.float64)
    state = head.state_dict()
    levels = [F.conv2d(x, state[f"lateral.{i}.weight"], state[f"lateral.{i}.bias"]) for i, x in enumerate(features)]
    merged = levels[2] + resized(levels[3], (4, 6))
    merged = levels[1] + resized(merged, (8, 12))
    merged = levels[0] + resized(merged, (16, 24))
    smooth = conv_bn_relu(conv_bn_relu(merged, state, "smooth.depthwise", 1, groups=6), state, "smooth.pointwise")
    expected = F.conv2d(smooth, state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize("head", [DAFormerHead, LightHead])
def test_dropout_only_in_training(head: type[DAFormerHead] | type[LightHead]) -> None:
    built = head(CHANNELS, STRIDES, 5, width=16, dropout=0.5)
    features = pyramid()
    assert not torch.equal(built(features), built(features))
    built.eval()
    assert torch.equal(built(features), built(features))


@pytest.mark.parametrize("head", [DAFormerHead, LightHead])
@pytest.mark.parametrize("option", [{"dropout": 1.0}, {"width": 0}])
def test_impossible_values_are_refused(head: type[DAFormerHead], option: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="width"):
        head(CHANNELS, STRIDES, 5, **option)
