"""What a network keeps apart: branches of its head, layers of each domain."""

import pytest
import torch

from udabench.networks.build import build_network
from udabench.networks.resnet import ResNet50
from udabench.parts.losses import split
from udabench.plugins import load_registry

REGISTRY = load_registry(installed=None)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    options = {"domain_stem": True, "lineage": "caffe"}
    return build_network(REGISTRY, "resnet50-deeplabv2", 3, "none", options).eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 33, 33, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_are_the_sum_of_the_branches(network, image):
    output = network(image)
    assert network.branch_count == len(output.branches) == 4
    torch.testing.assert_close(sum(output.branches), output.logits)
    one = network.head.branches[2](output.features[-1])
    torch.testing.assert_close(output.branches[2], one)
    parts = split(output, {"a": image[:1], "b": image[1:]})
    assert all(torch.equal(part, whole[1:]) for part, whole in zip(parts["b"].branches, output.branches, strict=True))


@torch.no_grad()
def test_each_domain_has_a_stem_of_its_own(network, image):
    source, target = network(image, domain="source").logits, network(image, domain="target").logits
    assert torch.equal(source, target)
    assert torch.equal(network(image).logits, source)
    network.backbone.target.conv1.weight.mul_(2)
    assert torch.equal(network(image, domain="source").logits, source)
    assert not torch.allclose(network(image, domain="target").logits, target)
    network.backbone.layer1[0].conv1.weight.mul_(3)
    network.copy_source_layers()
    assert torch.equal(network(image, domain="source").logits, network(image, domain="target").logits)
    assert not torch.equal(network(image).logits, source)


def test_both_stems_read_the_same_weights(tmp_path):
    given = ResNet50()
    torch.save(given.state_dict(), tmp_path / "weights.pth")
    backbone = ResNet50(domain_stem=True)
    report = backbone.load_weights(str(tmp_path / "weights.pth"))
    assert report.coverage == 1
    for stem in (backbone, backbone.target):
        assert torch.equal(stem.conv1.weight, given.conv1.weight)
        assert torch.equal(stem.layer1[2].conv3.weight, given.layer1[2].conv3.weight)


def test_without_the_option_nothing_is_added(image):
    backbone = ResNet50()
    assert not any(name.startswith("target") for name in backbone.state_dict())
    assert not backbone.by_domain
