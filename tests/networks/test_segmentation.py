"""Backbone + head: normalisation, frozen norms, parameter groups, auxiliary head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.network import CAFFE, TF, TORCH, Backbone, Normalization, WeightsReport
from udabench.networks.deeplabv2 import DeepLabV2Head
from udabench.networks.segmentation import Norm, Normalize, SegmentationNetwork, batch_norms


class Small(Backbone):
    """Two maps, a batch norm called bn and a layer norm called norm."""

    channels, strides = (4, 8), (2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.bn = nn.BatchNorm2d(4)
        self.norm = nn.GroupNorm(1, 4)
        self.second = nn.Conv2d(4, 8, 3, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        first = self.norm(self.bn(self.first(image)))
        return first, self.second(first)

    def load_weights(self, weights: str) -> WeightsReport:
        raise NotImplementedError


def build(norm: Norm = "auto", auxiliary: int = 0, backbone: Backbone | None = None) -> SegmentationNetwork:
    return SegmentationNetwork(
        backbone or Small(), lambda c, s: DeepLabV2Head(c, s, 3), 3, norm=norm, auxiliary=auxiliary
    )


def norm_of(network: SegmentationNetwork) -> nn.BatchNorm2d:
    (found,) = batch_norms(network.backbone)
    assert isinstance(found, nn.BatchNorm2d)
    return found


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        (TORCH, [(1.0 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.0 - 0.406) / 0.225]),
        (CAFFE, [-104.00698793, 127.5 - 116.66876762, 255 - 122.67891434]),  # BGR
        (TF, [128 / 128, 0.5 / 128, -127 / 128]),
    ],
)
def test_constants_of_each_lineage(normalization: Normalization, expected: list[float]) -> None:
    pixel = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(Normalize(normalization)(pixel).flatten(), torch.tensor(expected), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(normalization(pixel), Normalize(normalization)(pixel), rtol=1e-6, atol=1e-5)


def test_the_network_normalises_as_its_backbone_says() -> None:
    backbone = Small()
    backbone.normalization = CAFFE
    seen: list[Tensor] = []
    backbone.first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 8, 8)
    build(backbone=backbone)(image)
    torch.testing.assert_close(seen[0], CAFFE(image), rtol=1e-5, atol=1e-4)
    assert "normalize.scale" not in build().state_dict()  # constants are no weights


def test_frozen_norms_stay_frozen_through_train() -> None:
    network = build("frozen").train()
    norm = norm_of(network)
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    network(torch.rand(2, 3, 16, 16))
    assert not norm.training
    assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in norm.parameters())
    assert network.backbone.first.training
    assert network.head.training


def test_affine_frozen_norms_keep_counting() -> None:
    """The Caffe lineage: affine values get no gradient, running statistics move in train() and rest in eval()."""
    network = build("affine_frozen").train()
    norm = norm_of(network)
    network(torch.rand(2, 3, 16, 16)).logits.sum().backward()
    moved = norm.running_mean.clone()  # type: ignore[union-attr]
    assert moved.abs().sum() > 0
    assert norm.weight.grad is None
    network.eval()(torch.rand(2, 3, 16, 16))
    assert torch.equal(norm.running_mean, moved)  # type: ignore[arg-type]


def test_norms_learn_by_default_and_auto_follows_the_backbone() -> None:
    network = build()
    network.train()(torch.rand(2, 3, 16, 16)).logits.sum().backward()
    assert network.norm == "train"
    assert norm_of(network).weight.grad is not None
    lineage = Small()
    lineage.default_norm = "affine_frozen"  # type: ignore[assignment]
    assert not norm_of(build(backbone=lineage)).weight.requires_grad
    lineage = Small()
    lineage.default_norm = "affine_frozen"  # type: ignore[assignment]
    assert norm_of(build("train", backbone=lineage)).weight.requires_grad


@pytest.mark.parametrize("norm", ["train", "frozen", "affine_frozen"])
def test_groups_hold_every_trainable_parameter_once(norm: Norm) -> None:
    network = build(norm, auxiliary=1)
    groups = network.parameter_groups()
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in network.parameters() if p.requires_grad}


def test_only_what_is_called_norm_is_spared_decay() -> None:
    network = build(auxiliary=1)
    groups = {role: {id(p) for p in group} for role, group in network.parameter_groups().items()}
    assert isinstance(network.backbone, Small)
    assert groups["encoder_norm"] == {id(p) for p in network.backbone.norm.parameters()}
    assert id(network.backbone.bn.weight) in groups["encoder"]
    heads = (network.head, network.auxiliary_head)
    assert groups["head"] == {id(p) for head in heads if head is not None for p in head.parameters()}
    assert groups["head_norm"] == set()


def test_auxiliary_head_sees_the_earlier_map() -> None:
    output = build(auxiliary=1)(torch.rand(1, 3, 16, 24))
    assert output.logits.shape == (1, 3, 4, 6)
    (head,) = output.heads
    assert (tuple(head.logits.shape), head.weight, head.box) == ((1, 3, 8, 12), 0.1, None)
    assert build()(torch.rand(1, 3, 16, 24)).heads == ()


def test_encode_gives_the_same_pyramid() -> None:
    network = build().eval()
    image = torch.rand(1, 3, 16, 24)
    for alone, together in zip(network.encode(image), network(image).features, strict=True):
        assert torch.equal(alone, together)
    assert (network.output_stride, network.feature_channels) == (4, (4, 8))


def test_a_replica_has_equal_values_and_no_gradient() -> None:
    network = build("frozen")
    replica = network.replicate().train()
    assert isinstance(replica, SegmentationNetwork)
    assert not norm_of(replica).training
    assert all(not p.requires_grad for p in replica.parameters())
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in replica.state_dict().items())


def test_impossible_options() -> None:
    with pytest.raises(UsageError, match="norm is 'freeze'"):
        build("freeze")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="auxiliary is 2"):
        build(auxiliary=2)
    without = Small()
    without.bn = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(UsageError, match="no batch norms"):
        build("frozen", backbone=without)


def test_segmenting_and_encoding_is_one_pass_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(auxiliary=1).eval()
    rng = torch.Generator().manual_seed(0)
    image, other = (torch.rand(n, 3, 16, 24, generator=rng) for n in (2, 3))
    whole, alone = network(image), network.encode(other)
    seen = []
    monkeypatch.setattr(network.backbone, "forward", lambda x, f=network.backbone.forward: seen.append(len(x)) or f(x))
    output, features = network.segment_and_encode(image, other)
    assert seen == [5]
    torch.testing.assert_close(output.logits, whole.logits)
    torch.testing.assert_close(output.heads[0].logits, whole.heads[0].logits)
    for ours, theirs in zip((*output.features, *features), (*whole.features, *alone), strict=True):
        torch.testing.assert_close(ours, theirs)
