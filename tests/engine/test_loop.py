"""The loop: what a method sees, when, and what an engine setting changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import FakeData, FakeMethod, batch, config_of, evaluate, run, samples
from torch import nn
from torch.nn import functional as F

from udabench.engine.evaluation import Evaluated
from udabench.engine.folder import RunFolder
from udabench.engine.metrics import read_metrics
from udabench.engine.stages import read_stages
from udabench.errors import PluginError, UsageError, UserError
from udabench.method import (
    Batch,
    Group,
    Loss,
    Method,
    Mining,
    Optimizer,
    Panel,
    Probe,
    Scalar,
    Stage,
    Workspace,
)
from udabench.schedules import PolySchedule


class Plain(Method):
    """A linear network and whatever step a test gives it."""

    def __init__(self, step: Any = None, iterations: int = 4, lr: float = 0.1, **stage: Any) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, 3, 1)
        self.given, self.iterations, self.lr, self.stage = step, iterations, lr, stage

    def stages(self) -> list[Stage]:
        optimizer = Optimizer("sgd", [Group(tuple(self.net.parameters()), self.lr)], schedule=PolySchedule(power=0))
        return [Stage("main", self.iterations, self.step, {"segmenter": optimizer}, **self.stage)]

    def step(self, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        if self.given is not None:
            yield from self.given(self, batch, iteration, rng)
        yield Loss("source", F.cross_entropy(self.net(batch.source.image), batch.source.label))

    def predict(self, samples: Any) -> torch.Tensor:
        return self.net(samples.image)


class Accumulating(Plain):
    accumulates = True


def weights(method: Method) -> list[torch.Tensor]:
    return [value.clone() for value in method.state_dict().values()]


def same(first: Method, second: Method) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


def test_batches_are_asked_for_by_version_and_range(tmp_path: Path) -> None:
    method = FakeMethod()
    data = FakeData(RunFolder(tmp_path), method.stages())
    run(tmp_path, method, open_batches=data.batches, open_images=data.images)
    assert data.opened == [("warm", 0, 0, 5), ("adapt", 0, 0, 3), ("adapt", 3, 3, 6), ("adapt", 6, 6, 8)]
    assert data.closed == 4


def test_logging_drawing_evaluating_and_checkpoints_change_no_weight(tmp_path: Path) -> None:
    quiet, _ = run(tmp_path / "quiet", config=config_of(log_every=1000, panel_every=0, checkpoint_every=1000))
    loud, result = run(
        tmp_path / "loud",
        config=config_of(log_every=1, panel_every=1, checkpoint_every=1, eval_every=1),
        evaluate=evaluate,
        truth=lambda asked: torch.randint(3, asked.image[:, 0].shape),
    )
    assert same(quiet, loud)
    assert [iteration for iteration, _ in result.evaluations] == list(range(1, 13))


def test_an_evaluation_that_disturbs_everything_leaves_no_trace(tmp_path: Path) -> None:
    def disturb(method: Method, iteration: int) -> Evaluated:
        assert not method.training
        assert not torch.is_grad_enabled()
        torch.manual_seed(3)
        method.train()
        method.student(samples(5).image)  # type: ignore[operator]
        return Evaluated({})

    kept, _ = run(tmp_path / "kept", config=config_of(eval_every=2), evaluate=evaluate)
    disturbed, _ = run(tmp_path / "disturbed", config=config_of(eval_every=2), evaluate=disturb)
    assert same(kept, disturbed)


def test_a_step_draws_as_a_function_of_its_place(tmp_path: Path) -> None:
    seen: dict[str, list[float]] = {"a": [], "b": [], "c": []}

    def step_of(key: str) -> Any:
        def step(method: Plain, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
            seen[key] += [torch.rand(1, generator=rng).item(), torch.rand(1).item()]
            torch.rand(iteration)
            yield Scalar("nothing", torch.zeros(()))

        return step

    for key, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = config_of().model_copy(update={"seed": seed})
        run(tmp_path / key, Plain(step_of(key)), config)
    assert seen["a"] == seen["b"]
    assert not set(seen["a"]) & set(seen["c"])
    assert len(set(seen["a"])) == 8


def test_accumulated_micro_batches_equal_a_large_batch(tmp_path: Path) -> None:
    def large(stage: Stage, version: int, start: int, stop: int) -> Iterator[Batch]:
        for i in range(start, stop):
            pair = [batch(2 * i).source, batch(2 * i + 1).source]
            image, label = (torch.cat([getattr(s, key) for s in pair]) for key in ("image", "label"))
            yield Batch(pair[0]._replace(image=image, label=label), None)

    one, _ = run(tmp_path / "one", Accumulating(), open_batches=large)
    two, result = run(tmp_path / "two", Accumulating(), config_of(accumulate=2))
    for a, b in zip(weights(one), weights(two), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not same(Accumulating(), two)
    assert result.images_seen == 4 * 2 * 4


def test_accumulation_is_refused_where_it_changes_the_method(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"engine\.accumulate = 2, but FakeMethod"):
        run(tmp_path, config=config_of(accumulate=2))


def test_bfloat16_reaches_forward_passes_and_not_the_weights(tmp_path: Path) -> None:
    types: list[torch.dtype] = []

    def step(method: Plain, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        with torch.no_grad():
            types.append(method.net(batch.source.image).dtype)
        with torch.autocast("cpu", enabled=False):
            yield Scalar("suspended in a context", torch.zeros(()))
            types.append(method.net(batch.source.image).dtype)
        types.append(method.net(batch.source.image).dtype)

    method, _ = run(tmp_path, Plain(step, 1), config_of(precision="bfloat16"))
    assert types == [torch.bfloat16, torch.float32, torch.bfloat16]
    assert all(p.dtype == torch.float32 for p in method.parameters())
    assert not same(Plain(), method)
    assert not torch.is_autocast_enabled("cpu")


def test_float16_trains_with_a_scaler(tmp_path: Path) -> None:
    method, _ = run(tmp_path, Plain(iterations=3), config_of(precision="float16", log_every=1))
    exact, _ = run(tmp_path / "exact", Plain(iterations=3))
    for a, b in zip(weights(method), weights(exact), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["values"]["scale"] == 65536


def test_channels_last_and_deterministic_take_effect_and_are_undone(tmp_path: Path) -> None:
    seen: list[tuple[bool, bool]] = []

    def step(method: Plain, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        image = batch.source.image
        seen.append(
            (image.is_contiguous(memory_format=torch.channels_last), torch.are_deterministic_algorithms_enabled())
        )
        yield Scalar("nothing", torch.zeros(()))

    run(tmp_path, Plain(step, 1), config_of(channels_last=True, deterministic=True))
    assert seen == [(True, True)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_threads_take_effect_and_are_undone(tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []

    def step(method: Plain, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        seen.append(torch.get_num_threads())
        yield Scalar("nothing", torch.zeros(()))

    run(tmp_path, Plain(step, 1), config_of(threads=before + 1))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, bad: float) -> None:
    def step(method: Plain, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        if iteration == 2:
            yield Loss("rotten", method.net.weight.square().sum() * bad)

    method = Plain(step)
    method.advice = "Stir more slowly."
    said = r"loss 'rotten' is not finite at iteration 2 .*images: one, two, one, two.* Stir more slowly\.$"
    with pytest.raises(UserError, match=said):
        run(tmp_path, method, config_of(checkpoint_every=1))
    told = json.loads((tmp_path / "failure" / "failure.json").read_text())
    assert told["samples"] == ["one", "two", "one", "two"]
    assert told["losses"]["rotten"] == repr(bad)
    assert (tmp_path / "failure" / "state" / "model.safetensors").exists()
    assert RunFolder(tmp_path).status == "failed"
    assert all(torch.isfinite(p).all() for p in method.parameters()), "the optimisers were not stepped"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_weights_that_are_no_numbers_reach_no_checkpoint(tmp_path: Path) -> None:
    def spoil(iteration: int) -> None:
        if iteration == 2:
            method.net.weight.data[0] = float("inf")

    method = Plain(after_step=spoil)
    with pytest.raises(UserError, match=r"parameter 'net\.weight' is not finite"):
        run(tmp_path, method, config_of(checkpoint_every=1))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_a_full_disk_is_explained_and_the_last_checkpoint_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    import udabench.engine.checkpoint as module

    original, calls = module.save_file, []

    def full(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 6:
            path.write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        original(tensors, path)

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(UserError, match=r"No space is left .*The checkpoint of iteration 4 is intact.*resume"):
        run(tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    monkeypatch.undo()
    resumed, _ = run(tmp_path)
    whole, _ = run(tmp_path / "whole")
    assert same(resumed, whole)


def test_what_a_step_must_not_do_is_named(tmp_path: Path) -> None:
    def wrong(method: Plain, *_: Any) -> Iterator[Any]:
        yield torch.zeros(())

    with pytest.raises(PluginError, match="yielded a Tensor"):
        run(tmp_path / "a", Plain(wrong))
    returning = Plain()
    returning.step = lambda *_: None  # type: ignore[assignment,method-assign]
    with pytest.raises(PluginError, match="returned NoneType; it must be a generator"):
        run(tmp_path / "b", returning)
    twice = Plain()
    twice.stages = lambda: Plain.stages(twice) * 2  # type: ignore[method-assign]
    with pytest.raises(PluginError, match="no name twice"):
        run(tmp_path / "c", twice)


def test_what_a_stage_cannot_draw_from_is_named() -> None:
    for share in (0.0, 1.5):
        with pytest.raises(PluginError, match="Plain's stage 'main': source_share must be above 0 and at most 1"):
            read_stages(Plain(source_share=share), config_of())
    mining = {"mining": Mining("labels", "rare"), "layers": {"other": ("target", "pseudo_label")}}
    with pytest.raises(PluginError, match=r"mines the layer 'labels', which is none of its layers \(other\)"):
        read_stages(Plain(**mining), config_of())


def test_start_may_build_new_networks(tmp_path: Path) -> None:
    class Renewing(Plain):
        def stages(self) -> list[Stage]:
            (stage,) = super().stages()
            return [stage, Stage("again", 3, self.step, stage.optimizers, start=self.renew)]

        def renew(self) -> None:
            self.net = nn.Conv2d(3, 3, 3, padding=1)

    method, result = run(tmp_path, Renewing())
    untrained = Renewing()
    torch.manual_seed(0)
    assert result.iterations == 7
    assert method.net.weight.shape[-1] == 3
    again, _ = run(tmp_path, untrained)
    assert same(method, again)


def test_the_method_is_in_training_mode_after_a_prepare_that_forgot(tmp_path: Path) -> None:
    modes: list[bool] = []

    def step(method: Plain, *_: Any) -> Iterator[Any]:
        modes.append(method.training)
        yield Scalar("nothing", torch.zeros(()))

    def prepare(workspace: Workspace) -> None:
        method.eval()

    method = Plain(step, 2, prepare=prepare)
    run(tmp_path, method)
    assert modes == [True, True]


def test_events_reach_the_log(tmp_path: Path) -> None:
    truth = samples(1).label
    assert truth is not None

    def step(method: Plain, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        claimed = truth.clone()
        claimed[0] = 255
        yield Probe("pseudo", claimed, batch.source)
        yield Scalar("two", torch.tensor(2.0))
        yield Scalar("absent", torch.tensor(float("nan")))
        yield Panel("heat", lambda: batch.source.image.mean(1))

    run(tmp_path, Plain(step), config_of(log_every=3, panel_every=1), truth=lambda asked: truth)
    entries = read_metrics(tmp_path / "metrics.jsonl")
    assert [entry["iteration"] for entry in entries] == [1, 3, 4]
    values = entries[1]["values"]
    assert values["two"] == 2
    assert "absent" not in values
    assert values["probe/pseudo/density"] == 0.5
    assert values["probe/pseudo/accuracy"] == values["probe/pseudo/miou"] == 1
    assert values["lr/segmenter"] == 0.1
    assert {"loss/source", "time/step", "time/wait_share", "memory"} <= set(values)


def test_a_short_stream_is_a_bug_and_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended before the stage"):
        run(tmp_path, Plain(), open_batches=lambda *_: iter([batch(0)]))
    assert RunFolder(tmp_path).status == "failed"
