"""The perceptual loss against a float64 walk through VGG19's layers; its weights are real, or it is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.errors import CheckpointError, UsageError
from udabench.network import TORCH, Backbone, WeightsReport
from udabench.networks.generator import SIGNED
from udabench.networks.vgg19 import Vgg19
from udabench.networks.weights import random_report
from udabench.parts.perceptual import Perceptual, perceptual

PLAN = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""VGG19's blocks (Simonyan and Zisserman, Table 1, E): channels and 3x3 convolutions, each block then pooled."""


@cache
def layers(seed: int = 0) -> list[list[tuple[Tensor, Tensor]]]:
    rng, inputs, blocks = torch.Generator().manual_seed(seed), 3, []
    for width, depth in PLAN:
        blocks.append([])
        for _ in range(depth):
            weight = torch.randn(width, inputs, 3, 3, generator=rng) * (2 / (9 * inputs)) ** 0.5
            blocks[-1].append((weight, torch.randn(width, generator=rng) * 0.1))
            inputs = width
    return blocks


def published(blocks: list[list[tuple[Tensor, Tensor]]]) -> dict[str, Tensor]:
    """As torchvision's file names them: a convolution and a ReLU take two places, a pooling one."""
    state: dict[str, Tensor] = {"classifier.6.bias": torch.zeros(1000)}
    place = 0
    for block in blocks:
        for weight, bias in block:
            state |= {f"features.{place}.weight": weight, f"features.{place}.bias": bias}
            place += 2
        place += 1
    return state


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(published(layers()), path)
    return path


def walk(image: Tensor) -> list[Tensor]:
    """relu1_1, relu2_1, ... in float64, of an image as the weights want it."""
    maps, x = [], image.double()
    for block in layers():
        x = F.max_pool2d(x, 2) if maps else x
        for number, (weight, bias) in enumerate(block):
            x = F.relu(F.conv2d(x, weight.double(), bias.double(), padding=1))
            if number == 0:
                maps.append(x)
    return maps


def normalized(image: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def test_the_loss_by_hand(file: Path) -> None:
    made, goal = torch.rand(2, 1, 3, 16, 20).unbind()
    made.requires_grad_()
    goal.requires_grad_()
    compared = perceptual(weights=str(file))
    loss = compared.loss(made, goal)
    shares = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)
    pairs = zip(walk(normalized(made)), walk(normalized(goal)), strict=True)
    expected = sum((share * (a - b).abs().mean() for share, (a, b) in zip(shares, pairs, strict=True)), torch.zeros(()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert compared.report.source == "vgg19.pth"
    assert compared.report.coverage == 1

    loss.backward()
    assert goal.grad is None
    assert made.grad is not None
    assert bool(made.grad.ne(0).any())
    assert all(p.grad is None for p in compared.module.parameters())


def test_maps_are_the_five_first_relus(file: Path) -> None:
    module = Vgg19()
    module.load_weights(str(file))
    image = torch.rand(1, 3, 16, 32)
    maps = module(TORCH(image))
    assert tuple(m.shape[1] for m in maps) == module.channels
    assert tuple(32 // m.shape[3] for m in maps) == module.strides
    for made, expected in zip(maps, walk(normalized(image)), strict=True):
        torch.testing.assert_close(made.double(), expected, rtol=1e-3, atol=1e-4)


class Ramp(Backbone):
    """Twice and three times the normalised image."""

    channels, strides = (3, 3), (1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return 2 * image, 3 * image

    def load_weights(self, weights: str) -> WeightsReport:
        return random_report(self)


def test_fewer_maps_take_the_last_shares_and_the_range_can_be_set() -> None:
    """An image 0.5 above its goal is 1 above it in [-1, 1]: 2 / 4 + 3."""
    ramp = Ramp()
    compared = Perceptual(ramp, random_report(ramp), normalization=SIGNED)
    goal = torch.rand(1, 3, 2, 2) / 2
    assert compared.loss(goal + 0.5, goal).item() == pytest.approx(3.5)


def test_no_checkpoint_stores_it(file: Path) -> None:
    owner = nn.Module()
    owner.compared = perceptual(weights=str(file))
    assert not owner.state_dict()


def test_random_weights_are_refused() -> None:
    with pytest.raises(UsageError, match=r"random weights.*'lite0' as a stated substitute, or leave the term out"):
        perceptual(weights="none")


def test_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("UDABENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match=r"vgg19-dcbb9e9d.pth.*no route to host.*UDABENCH_WEIGHTS.*lite0"):
        perceptual()
    with pytest.raises(CheckpointError, match=r"no weight file .*absent.pth.*lite0"):
        perceptual(weights=str(tmp_path / "absent.pth"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match=r"cover 3\.8% of the network's 26 values"):
        perceptual(weights=str(path))


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(UsageError, match="Did you mean 'vgg19'"):
        perceptual("vgg16")


def test_lite0_is_a_substitute_with_real_weights() -> None:
    compared = perceptual("lite0")
    assert compared.report.coverage == 1
    assert compared.shares == (1 / 16, 1 / 8, 1 / 4, 1)
    image = torch.rand(1, 3, 32, 32)
    assert compared.loss(image, image).item() == 0
    assert compared.loss(image, image.flip(3)).item() > 0
