"""A stage's prepare: how it runs, what is logged of it, and stages that are nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import NAMES, config_of, run, samples
from torch import Tensor, nn

from udabench.engine.metrics import read_metrics
from udabench.errors import PluginError
from udabench.method import Group, Loss, Method, Optimizer, Panel, Probe, Scalar, Stage, Update, Workspace


class Counting(Method):
    """One step, then a pass that counts brightness into a buffer, then two steps more."""

    def __init__(self, last: int = 2, first: int = 1) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
        self.register_buffer("mean", torch.zeros(3))
        self.lengths = first, last
        self.seen: list[Any] = []
        self.fail_after: int | None = None

    def stages(self) -> list[Stage]:
        first, last = self.lengths
        optimizers = {"segmenter": Optimizer("sgd", [Group(tuple(self.net.parameters()), 0.1)])}
        steps = [Stage("first", first, self.step, optimizers)] if first else []
        passes = [Stage("count", 0, prepare=self.count, domains=("target",))]
        return [*steps, *passes, *([Stage("last", last, self.step, optimizers)] if last else [])]

    def step(self, batch: Any, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        yield Loss("bright", (self.net(batch.source.image) - self.mean.view(1, 3, 1, 1)).square().mean())

    def count(self, workspace: Workspace) -> Iterator[Any]:
        for number, image in enumerate(workspace.images("target", skip_done="mean")):
            if number == self.fail_after:
                raise KeyboardInterrupt
            logits = self.net(image.image)
            self.seen.append((self.training, self.net.training, torch.is_grad_enabled(), logits.dtype))
            workspace.write("mean", image.names[0], logits.float().mean((0, 2, 3)).view(3, 1))
            yield Scalar("width", torch.tensor(float(number)))
        self.mean.copy_(torch.stack([workspace.read("mean", name) for name in NAMES]).mean((0, 2)))

    def predict(self, samples: Any) -> Tensor:
        return self.net(samples.image)


def end_of(method: Method) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in method.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("first", "last"), [(1, 2), (1, 0), (0, 2), (0, 0)])
def test_a_stage_may_be_a_pass_alone(tmp_path: Path, first: int, last: int) -> None:
    method, result = run(tmp_path, Counting(last, first))
    assert result.iterations == first + last
    assert float(method.mean.abs().sum()) > 0
    whole = end_of(method)
    again, _ = run(tmp_path, Counting(last, first))
    assert_same(whole, end_of(again))
    assert again.seen == []


@pytest.mark.parametrize(("first", "last"), [(1, 2), (1, 0), (0, 2), (0, 0)])
def test_a_pass_alone_that_is_killed_goes_on(tmp_path: Path, first: int, last: int) -> None:
    whole, _ = run(tmp_path / "whole", Counting(last, first))
    killed = Counting(last, first)
    killed.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", killed)
    resumed, result = run(tmp_path / "killed", Counting(last, first))
    assert len(resumed.seen) == 1
    assert result.iterations == first + last
    assert_same(end_of(whole), end_of(resumed))


def test_a_pass_runs_in_eval_mode_without_gradients_in_the_runs_precision(tmp_path: Path) -> None:
    method, _ = run(tmp_path, Counting(), config_of(precision="bfloat16"))
    assert method.seen == [(False, False, False, torch.bfloat16)] * len(NAMES)
    assert method.training
    assert method.net.training


def prepared(tmp_path: Path, prepare: Any, **arguments: Any) -> list[dict[str, Any]]:
    class Passing(Counting):
        def stages(self) -> list[Stage]:
            return [Stage("count", 0, prepare=prepare), super().stages()[-1]]

    run(tmp_path, Passing(), config_of(panel_every=0), **arguments)
    return read_metrics(tmp_path / "metrics.jsonl")


def test_what_a_pass_yields_is_logged_once_at_its_end(tmp_path: Path) -> None:
    """Three images of 64 pixels; of each the first half is claimed as class 0. True: 0 everywhere, then 0, then 1.
    Right: 64 of 96. IoU of 0: 64 / 96; of 1: 0 / 32."""
    drawn: list[str] = []

    def prepare(workspace: Workspace) -> Iterator[Any]:
        for number, image in enumerate(workspace.images("target")):
            claimed = torch.zeros(1, 8, 8, dtype=torch.int64)
            claimed[:, 4:] = 255
            yield Probe("half", claimed, image)
            yield Scalar("number", torch.tensor(float(number)))
            yield Panel("picture", lambda image=image: drawn.append(image.names[0]) or image.image)

    def truth(asked: Any) -> Tensor:
        return torch.full((1, 8, 8), int(asked.names == (NAMES[2],)))

    entry = prepared(tmp_path, prepare, truth=truth)[0]
    assert (entry["stage"], entry["iteration"]) == ("count", 0)
    assert entry["values"]["number"] == 1
    assert entry["values"]["probe/half/density"] == 0.5
    assert entry["values"]["probe/half/accuracy"] == pytest.approx(64 / 96)
    assert entry["values"]["probe/half/miou"] == pytest.approx(64 / 96 / 2)
    assert drawn == [NAMES[0]]


def test_a_pass_trains_nothing(tmp_path: Path) -> None:
    def prepare(workspace: Workspace) -> Iterator[Any]:
        yield Update("segmenter")

    with pytest.raises(PluginError, match="prepare of stage 'count' yielded a Update"):
        prepared(tmp_path / "yields", prepare)
    with pytest.raises(PluginError, match="prepare of stage 'count' returned a list"):
        prepared(tmp_path / "returns", lambda workspace: [])


def test_logging_of_a_pass_draws_nothing(tmp_path: Path) -> None:
    noise: dict[bool, list[float]] = {True: [], False: []}

    def prepare_of(logged: bool) -> Any:
        def prepare(workspace: Workspace) -> Iterator[Any]:
            for _ in workspace.images("target"):
                if logged:
                    yield Panel("noise", lambda: torch.rand(1, 3, 8, 8))
                noise[logged].append(float(torch.rand(())))

        return prepare

    for logged in noise:
        prepared(tmp_path / str(logged), prepare_of(logged))
    assert noise[True] == noise[False]


def test_a_stage_that_does_nothing_is_refused(tmp_path: Path) -> None:
    class Empty(Counting):
        def stages(self) -> list[Stage]:
            return [Stage("nothing", 0)]

    with pytest.raises(PluginError, match="'nothing' has 0 iterations"):
        run(tmp_path, Empty())


def test_whole_images_reach_the_truth(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def prepare(workspace: Workspace) -> Iterator[Any]:
        for image in workspace.images("target"):
            yield Probe("all", torch.zeros(1, 8, 8, dtype=torch.int64), image)

    def truth(given: Any) -> Tensor:
        asked.append(given.names)
        label = samples(1, given.names).label
        assert label is not None
        return label

    prepared(tmp_path, prepare, truth=truth)
    assert asked == [(name,) for name in NAMES]
