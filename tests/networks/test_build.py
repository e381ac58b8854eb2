"""From names and options to networks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from udabench.errors import CheckpointError, UsageError
from udabench.hookspecs import Entry
from udabench.network import CAFFE, TF, TORCH, Network, Normalization, Output
from udabench.networks.build import Recipe, build_network, known_options, parse
from udabench.networks.daformer import DAFormerHead
from udabench.networks.light import LightHead
from udabench.networks.segmentation import SegmentationNetwork
from udabench.registry import Registry


class Whole(Network):
    """A network of one layer."""

    output_stride, feature_channels = 1, (3,)

    def __init__(self, classes: int, weights: str, *, gain: float = 1.0) -> None:
        super().__init__()
        self.classes, self.weights, self.gain = classes, weights, gain
        self.layer = nn.Conv2d(3, classes, 1)

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        return Output(self.layer(image), (image,))

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        return (image,)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"head": list(self.parameters())}


class Wrapper(Whole):
    """Adds nothing to the network inside."""

    wraps = True

    def __init__(self, build_inner: Callable[[], Network], classes: int, *, scale: float = 0.5) -> None:
        super().__init__(classes, "none")
        self.inner, self.scale = build_inner(), scale


@pytest.fixture
def extended(registry: Registry) -> Registry:
    found = Registry(backbones=registry.backbones, heads=registry.heads)
    found.networks.add("whole", Entry(Whole), "test")
    found.networks.add("around", Entry(Wrapper), "test")
    return found


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("resnet101-deeplabv2", Recipe(backbone="resnet101", head="deeplabv2")),
        ("timm:convnext_tiny.fb_in1k-light", Recipe(backbone="timm", argument="convnext_tiny.fb_in1k", head="light")),
        ("lite0", Recipe(backbone="lite0", head="light")),
        ("lite0-daformer", Recipe(backbone="lite0", head="daformer")),
        ("whole", Recipe(whole="whole")),
        ("around:whole", Recipe(("around",), "whole")),
        ("around:mit_b5-daformer", Recipe(("around",), backbone="mit_b5", head="daformer")),
        (
            "around:around:timm:resnet18-light",
            Recipe(("around", "around"), backbone="timm", argument="resnet18", head="light"),
        ),
    ],
)
def test_names(extended: Registry, name: str, recipe: Recipe) -> None:
    assert parse(extended, name) == recipe


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet101-deeplab", "Unknown head 'deeplab'. Did you mean 'deeplabv2'?"),
        ("resnet102-deeplabv2", "Unknown backbone 'resnet102'. Did you mean 'resnet101'?"),
        ("resnet101", "Did you mean 'resnet101-<head>'?"),
        ("hole", "Did you mean 'whole'?"),
        ("around", "write around:<network>"),
        ("whole:lite0", "wraps no other"),
        ("around:nothing", "Unknown network 'nothing'"),
        ("timm:resnet19-light", "resnet18"),
        ("timm-light", "Unknown timm model"),
        ("lite0:wide-light", "takes no argument"),
    ],
)
def test_wrong_names_say_what_there_is(extended: Registry, name: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_network(extended, name, 3, "none")
    assert words in str(caught.value)


def test_options_reach_their_parts(registry: Registry) -> None:
    network = build_network(
        registry, "mit_b0-daformer", 5, "none", {"drop_path": 0.0, "width": 32, "auxiliary": 2, "auxiliary_weight": 0.4}
    )
    assert isinstance(network, SegmentationNetwork)
    assert isinstance(network.head, DAFormerHead)
    assert network.head.fuse.conv.out_channels == 32
    assert network.backbone.get_submodule("block4.1").drop_path.p == 0
    (head,) = network.eval()(torch.rand(1, 3, 64, 64)).heads
    assert (tuple(head.logits.shape), head.weight) == ((1, 5, 16, 16), 0.4)


@pytest.mark.parametrize("options", [{"head.width": 8}, {"head": {"width": 8}}, {"width": 8}])
def test_options_may_name_their_part(registry: Registry, options: dict[str, Any]) -> None:
    network = build_network(registry, "lite0-light", 5, "none", options)
    assert isinstance(network, SegmentationNetwork)
    assert isinstance(network.head, LightHead)
    assert network.head.classifier.in_channels == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"witdh": 8}, "Did you mean 'width'? Known: auxiliary, auxiliary_weight, dropout, norm, width"),
        ({"head.norm": "frozen"}, "Unknown option"),
        ({"neck.width": 8}, "parts: backbone, head, network"),
        ({"lineage": "caffe"}, "Unknown option"),
    ],
)
def test_unknown_options_are_refused(registry: Registry, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_network(registry, "lite0", 5, "none", options)
    assert words in str(caught.value)


def test_wrapper_and_whole_networks(extended: Registry) -> None:
    network = build_network(extended, "around:whole", 4, "file.pth", {"gain": 3.0, "scale": 0.25})
    assert isinstance(network, Wrapper)
    assert isinstance(network.inner, Whole)
    assert (network.scale, network.inner.gain, network.inner.weights, network.inner.classes) == (
        0.25,
        3.0,
        "file.pth",
        4,
    )
    assert known_options(extended, "around:lite0") == {
        "around": ("scale",),
        "backbone": (),
        "head": ("width", "dropout"),
        "network": ("norm", "auxiliary", "auxiliary_weight"),
    }


def test_the_same_option_in_two_parts_must_be_addressed(extended: Registry) -> None:
    class Doubled(Wrapper):
        def __init__(self, build_inner: Callable[[], Network], classes: int, *, gain: float = 1.0) -> None:
            super().__init__(build_inner, classes)
            self.gain = gain

    extended.networks.add("doubled", Entry(Doubled), "test")
    with pytest.raises(UsageError, match=r"write doubled\.gain or network\.gain"):
        build_network(extended, "doubled:whole", 4, "none", {"gain": 2.0})
    network = build_network(extended, "doubled:whole", 4, "none", {"doubled.gain": 2.0, "network.gain": 5.0})
    assert isinstance(network, Doubled)
    assert isinstance(network.inner, Whole)
    assert (network.gain, network.inner.gain) == (2.0, 5.0)


def test_random_weights_only_when_asked_for(registry: Registry) -> None:
    (report,) = build_network(registry, "lite0", 3, "none").reports
    assert (report.coverage, report.source) == (0.0, "none (random)")
    with pytest.raises(CheckpointError, match="no weight file"):
        build_network(registry, "resnet50-deeplabv2", 3, "gone.pth")


def test_registering_imports_no_torch() -> None:
    code = "import sys, udabench.networks as n; n.register_backbones(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_registered_class_exists(registry: Registry) -> None:
    for catalogue in (registry.backbones, registry.heads):
        for registered in catalogue:
            assert catalogue.get(registered.name).__name__


def test_a_wrapper_hands_on_what_the_loader_said_of_the_weights_inside(extended: Registry) -> None:
    inner = build_network(extended, "lite0", 3, "none")
    assert build_network(extended, "around:around:lite0", 3, "none").reports == inner.reports != ()


@pytest.mark.parametrize("normalization", [TORCH, CAFFE, TF])
def test_the_mean_color_normalises_to_zero(normalization: Normalization) -> None:
    color = torch.tensor(normalization.mean_color, dtype=torch.float64).view(1, 3, 1, 1)
    assert 0 < color.min() < color.max() + 1e-9 < 1
    assert normalization(color).abs().max() < 1e-12


def test_a_built_network_knows_its_mean_color(registry: Registry) -> None:
    network = build_network(registry, "lite0", 3, "none")
    color = torch.tensor(network.mean_color).view(1, 3, 1, 1)
    assert network.normalize(color).abs().max() < 1e-5
