"""A method around another: it adds a term to a loss, reads what the step returns, and takes over permissions."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from engine_fakes import config_of, run
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.engine.metrics import read_metrics
from udabench.method import Batch, Event, Group, Loss, Method, Optimizer, PolySchedule, Scalar, Shared, Stage, changed
from udabench.network import Network, Output


class Pixelwise(Network):
    """A 1x1 convolution."""

    classes, output_stride, feature_channels = 3, 1, (3,)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        return Output(self.layer(image), (image,))

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        return (image,)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"head": list(self.parameters())}


class Inner(Method):
    """Trains on the source and returns its labels."""

    accumulates = True

    def __init__(self) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.network = Pixelwise()

    def stages(self) -> list[Stage]:
        segmenter = Optimizer("sgd", [Group(tuple(self.network.parameters()), 0.1)], schedule=PolySchedule(power=0))
        return [Stage("main", 1, self.step, {"segmenter": segmenter}, domains=("source",))]

    def step(self, batch: Batch, iteration: int, rng: torch.Generator) -> Generator[Event, None, Shared]:
        source = batch.source
        assert source is not None
        assert source.label is not None
        out = self.network(source.image)
        yield Loss("source", F.cross_entropy(out.logits, source.label), outputs={"source": out})
        return Shared(self.network, source, source.label, torch.full(source.label.shape, 0.25))

    def predict(self, samples: Any) -> Tensor:
        logits: Tensor = self.network(samples.image).logits
        return logits


class Outer(Inner):
    """Doubles the loss by a term on the same graph, and logs the mean weight."""

    def __init__(self, inner: Inner) -> None:
        super().__init__()
        del self.network
        self.inner = inner
        self.accumulates = inner.accumulates
        self.target_labels = True

    @property
    def translated_input(self) -> bool:
        return self.inner.translated_input

    def stages(self) -> list[Stage]:
        return [replace(stage, step=self.step) for stage in self.inner.stages()]

    def step(self, batch: Batch, iteration: int, rng: torch.Generator) -> Generator[Event, None, Shared]:
        shared = yield from changed(self.inner.step(batch, iteration, rng), lambda event: self.twice(event, batch))
        yield Scalar("weight", shared.weight.mean())
        return shared

    def twice(self, event: Event, batch: Batch) -> Event:
        if not isinstance(event, Loss):
            return event
        assert batch.source is not None
        assert batch.source.label is not None
        return event._replace(value=event.value + F.cross_entropy(event.outputs["source"].logits, batch.source.label))

    def predict(self, samples: Any) -> Tensor:
        return self.inner.predict(samples)


def test_a_wrapper_adds_a_term_before_the_engine_sees_the_loss(tmp_path: Path) -> None:
    """One step of SGD: twice the loss moves the weights twice as far."""
    start = Inner().network.layer.weight.detach().clone()
    plain, _ = run(tmp_path / "plain", Inner(), config_of(accumulate=2))
    outer, _ = run(tmp_path / "outer", Outer(Inner()), config_of(accumulate=2))
    once, twice = (net.layer.weight.detach() - start for net in (plain.network, outer.inner.network))
    assert float(once.abs().max()) > 1e-4
    torch.testing.assert_close(twice, 2 * once)
    values = read_metrics(tmp_path / "outer" / "metrics.jsonl")[-1]["values"]
    assert values["weight"] == 0.25


def test_what_is_said_of_a_method_is_read_from_the_built_one() -> None:
    outer = Outer(Inner())
    assert outer.accumulates
    assert outer.target_labels
    assert not Method.accumulates
    assert not Inner().target_labels
    assert not outer.translated_input
    assert outer.network_of_record() is outer.inner.network
