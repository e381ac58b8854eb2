"""Features of whatever network a predictor runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from udabench.analysis.tap import tapped
from udabench.errors import UsageError
from udabench.method import Method, Samples
from udabench.network import Network, Output
from udabench.parts.ema import Ema

IMAGE = torch.ones(1, 3, 4, 4)


class Plain(Network):
    """Features are the image times a factor."""

    classes, output_stride, feature_channels = 3, 1, (3,)

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        features = self.encode(image, domain)
        return Output(features[-1], features)

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        return (image * self.factor,)

    def parameter_groups(self) -> Any:
        return {}


class Around(Plain):
    """Runs the inner network on parts, and puts something of its own together."""

    def __init__(self, inner: Network) -> None:
        super().__init__(100.0)
        self.inner = inner

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        for part in image.chunk(2, -1):
            self.inner(part)
        return super().forward(image, domain)


class Several(Method):
    def __init__(self, **networks: nn.Module) -> None:
        nn.Module.__init__(self)
        for name, network in networks.items():
            self.add_module(name, network)

    def stages(self) -> list[Any]:
        return []

    def predict(self, samples: Samples) -> Tensor:
        raise NotImplementedError


def factor(method: Several, *called: nn.Module) -> float:
    with tapped(method) as tap:
        for network in called:
            network(IMAGE)
        return float(tap.take(method).features[-1].detach().max())


def test_the_teachers_features_are_the_teachers() -> None:
    student = Plain(2.0)
    teacher = Ema(Plain(3.0))
    method = Several(student=student, teacher=teacher)
    assert factor(method, teacher) == 3
    assert factor(method, student) == 2
    assert factor(method, teacher, student) == 2  # both ran: the network of record


def test_without_the_network_of_record_the_first_counts() -> None:
    one, two = Ema(Plain(3.0)), Ema(Plain(4.0))
    assert factor(Several(student=Plain(2.0), one=one, two=two), two, one) == 4


def test_a_network_around_a_network_answers_for_both() -> None:
    network = Around(Plain(2.0))
    assert factor(Several(network=network), network) == 100


def test_a_compiled_network_is_heard() -> None:
    network = Plain(2.0)
    network.compile(backend="eager")
    assert factor(Several(network=network), network) == 2


def test_what_was_heard_is_forgotten_and_hooks_are_removed() -> None:
    network = Plain(2.0)
    method = Several(network=network)
    with tapped(method) as tap:
        network(IMAGE)
        tap.take(method)
        with pytest.raises(UsageError, match="--features logits"):
            tap.take(method)
    network(IMAGE)
    assert not tap.heard
    assert not network._forward_hooks
