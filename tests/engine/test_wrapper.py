"""A method around another: it adds a term to a loss, reads what the step returns, and takes over permissions."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import config_of, run, samples
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.config import MethodConfig, WrapperConfig
from udabench.engine.metrics import read_metrics
from udabench.errors import UsageError
from udabench.method import (
    Batch,
    Event,
    Group,
    Loss,
    Method,
    Optimizer,
    Scalar,
    Shared,
    Stage,
    Step,
    changed,
    no_step,
)
from udabench.network import Network, Output
from udabench.parts.wrapper import Wrapper
from udabench.schedules import PolySchedule


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


class Gives:
    """A setup that has one method to wrap."""

    def __init__(self, inner: Method) -> None:
        self.inner = inner

    def method(self, name: str, values: Any = None, iterations: int | None = None) -> Method:
        assert (name, values, iterations) == ("inner", MethodConfig(), None)
        return self.inner


class Outer(Wrapper):
    """Doubles the loss by a term on the same graph, and logs the mean weight."""

    def __init__(self, inner: Method) -> None:
        super().__init__(WrapperConfig(inner="inner"), Gives(inner))  # type: ignore[arg-type]

    def wrap(self, step: Step) -> Step:
        return partial(self.step, step)

    def step(self, inner: Step, batch: Batch, iteration: int, rng: torch.Generator) -> Generator[Event, None, Shared]:
        shared: Shared = yield from changed(inner(batch, iteration, rng), lambda event: self.twice(event, batch))
        yield Scalar("weight", shared.weight.mean())
        return shared

    def twice(self, event: Event, batch: Batch) -> Event:
        if not isinstance(event, Loss):
            return event
        assert batch.source is not None
        assert batch.source.label is not None
        return event._replace(value=event.value + F.cross_entropy(event.outputs["source"].logits, batch.source.label))


def test_a_wrapper_adds_a_term_before_the_engine_sees_the_loss(tmp_path: Path) -> None:
    """One step of SGD: twice the loss moves the weights twice as far."""
    start = Inner().network.layer.weight.detach().clone()
    plain, _ = run(tmp_path / "plain", Inner(), config_of(accumulate=2))
    outer, _ = run(tmp_path / "outer", Outer(Inner()), config_of(accumulate=2))
    once, twice = (net.layer.weight.detach() - start for net in (plain.network, outer.network_of_record()))
    assert float(once.abs().max()) > 1e-4
    torch.testing.assert_close(twice, 2 * once)
    values = read_metrics(tmp_path / "outer" / "metrics.jsonl")[-1]["values"]
    assert values["weight"] == 0.25


def test_what_is_said_of_a_method_is_read_from_the_built_one() -> None:
    inner = Inner()
    inner.target_labels = True
    outer = Outer(inner)
    assert outer.accumulates
    assert outer.target_labels
    assert not Method.accumulates
    assert not Inner().target_labels
    assert not outer.translated_input
    assert outer.network_of_record() is inner.network


class Looking(Inner):
    """Sees images half as bright when it is evaluated; a pass of its own lies before its training."""

    shares = True

    def look(self, samples: Any) -> Any:
        return samples._replace(image=samples.image / 2)

    def stages(self) -> list[Stage]:
        return [Stage("pass", 0, prepare=lambda workspace: None), *super().stages()]

    def predictors(self) -> dict[str, Any]:
        return {"other": self.predict}


def test_all_else_is_the_inner_methods() -> None:
    inner = Looking()
    outer = Outer(inner)
    seen = samples(3)
    assert torch.equal(outer.look(seen).image, seen.image / 2)
    assert outer.translated_input
    assert outer.shares
    assert list(outer.predictors()) == ["other"]
    assert torch.equal(outer.predict(seen), inner.predict(seen))
    before, after = inner.stages(), outer.stages()
    assert [(stage.name, stage.iterations, stage.domains) for stage in after] == [
        (stage.name, stage.iterations, stage.domains) for stage in before
    ]
    assert after[0].step is no_step
    assert set(outer.state_dict()) == {f"inner.{key}" for key in inner.state_dict()}


def test_a_wrapper_may_need_what_inner_steps_return() -> None:
    class Needy(Outer):
        needs_shared = True

    assert Needy.why_not_around(Looking) is None
    assert "no pseudo-labels" in str(Needy.why_not_around(Inner))
    with pytest.raises(UsageError, match="inner with these settings has no pseudo-labels"):
        Needy(Inner())
