"""What a run opens, and what its record says, on the fake data."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.data.locate import open_dataset
from udabench.data.store import prepare
from udabench.errors import PluginError, UsageError
from udabench.evaluate.evaluator import Evaluation
from udabench.method import Batch, Group, Loss, Method, Optimizer, Samples, Stage
from udabench.results import Scored
from udabench.run import opened as opening
from udabench.run.conduct import start_run
from udabench.run.evaluation import evaluate_run
from udabench.run.opened import open_plan
from udabench.run.plan import Plan, Request, make_plan
from udabench.run.predict import Predictor
from udabench.run.scoring import Scorer
from udabench.run.trained import Trained
from udabench.testing import FAKES, SMALL, dataset, fake_registry, write_fake_data
from udabench.testing.subject import Subject


def subject(method: str | type[Method], folder: Path, **values: Any) -> Subject:
    return Subject(method, None, folder, {"engine.device": "cpu", "engine.threads": 1, **values})


class Darkener(Method):
    """Sees its images darkened when it is tested."""

    def __init__(self, config: Any, setup: Any) -> None:
        super().__init__(config, setup)
        self.network = setup.network()
        self.looked: list[tuple[int, ...]] = []
        self.seen: list[float] = []

    def stages(self) -> list[Stage]:
        optimizers = {"segmenter": self.setup.segmenter(self.network)}
        return [Stage("train", self.setup.iterations, self.step, optimizers, domains=("source",))]

    def step(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Loss, None, None]:
        assert batch.source is not None
        yield Loss("logits", self.network(batch.source.image).logits.square().mean())

    def look(self, samples: Samples) -> Samples:
        self.looked.append(tuple(samples.image.shape))
        return samples._replace(image=samples.image / 100)

    def predict(self, samples: Samples) -> Tensor:
        self.seen.append(float(samples.image.max()))
        logits: Tensor = self.network(samples.image).logits
        return logits


class Nameless(Method):
    """Trains something that is no Network."""

    def __init__(self, config: Any, setup: Any) -> None:
        super().__init__(config, setup)
        self.layer = nn.Conv2d(3, 19, 1)

    def stages(self) -> list[Stage]:
        optimizer = Optimizer("sgd", [Group(tuple(self.layer.parameters()), 0.1)])
        return [Stage("train", 1, lambda batch, iteration, rng: iter(()), {"segmenter": optimizer})]  # type: ignore[arg-type, return-value]

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.layer(samples.image)
        return logits


@pytest.mark.parametrize(
    ("method", "needed", "other"),
    [("source_only", "source", dataset.TARGET), ("oracle", "target", dataset.SOURCE)],
)
def test_only_the_domains_of_the_stages_are_opened(tmp_path: Path, method: str, needed: str, other: str) -> None:
    plan = subject(method, tmp_path).plan
    for kind in ("images", "labels"):
        shutil.rmtree(tmp_path / "data" / other / kind / "train")
    opened = open_plan(plan)
    assert set(opened.training) == set(opened.lists) == {needed}
    outcome = start_run(plan, tmp_path / "runs")
    assert outcome.record.lists == opened.lists
    assert not outcome.record.flags.translated_input
    assert not outcome.record.flags.lossy_store


def test_data_that_disappears_after_the_training_does_not_cost_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, final = subject("source_only", tmp_path).plan, Scorer.final

    def gone(self: Scorer, *arguments: Any) -> list[Scored]:
        shutil.rmtree(tmp_path / "data" / dataset.SOURCE)
        return final(self, *arguments)

    monkeypatch.setattr(Scorer, "final", gone)
    assert set(start_run(plan, tmp_path / "runs").record.lists) == {"source"}


def test_a_method_without_a_network_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="Nameless has no Network among its submodules"):
        start_run(subject(Nameless, tmp_path).plan, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("**/run.json"))


def test_a_look_comes_before_windows_and_mirrors(tmp_path: Path) -> None:
    values = {"evaluate.mode": "slide", "evaluate.window": "16x16", "evaluate.stride": "16x16", "evaluate.flip": True}
    plan = subject(Darkener, tmp_path, **values).plan
    outcome = start_run(plan, tmp_path / "runs")
    assert outcome.record.flags.translated_input
    assert "images that the method had transformed" in " ".join(outcome.record.flags.described())
    opened = open_plan(plan)
    method = opened.method.eval()
    assert isinstance(method, Darkener)
    Scorer(plan, opened.val, opened.device, tmp_path).score(method, method.predict)
    size = opened.val.train_size
    assert method.looked == [(1, 3, *size)] * len(opened.val)
    assert max(method.seen) <= 0.01
    method.looked.clear()
    trained = Trained(plan, method, tmp_path, 0, torch.device("cpu"))
    Predictor(trained, "trainids").labels(opened.val.read_image(opened.val.names[0]))
    assert len(method.looked) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engine.sync_norms": True}, "engine.sync_norms joins batch norms over GPUs, and this run is on the CPU"),
        ({"data.target_batch": 3}, "data.target_batch = 3 does not divide by the 2 processes"),
    ],
)
def test_what_two_processes_cannot_do_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], said: str
) -> None:
    plan = subject("dacs", tmp_path, **values).plan
    open_plan(plan)
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setattr(opening, "world_size", lambda: 2)
    with pytest.raises(UsageError, match=re.escape(said)):
        open_plan(plan)


def test_a_jpeg_store_is_flagged(tmp_path: Path) -> None:
    plan = subject("source_only", tmp_path, **{"data.store": str(tmp_path / "store")}).plan
    data = plan.config.data
    assert not open_plan(plan).lossy
    source = open_dataset(plan.registry, dataset.SOURCE, "train", data.roots, {})
    assert data.source_size is not None
    prepare(source, data.source_size, data.store, "jpeg")
    assert open_plan(plan).lossy


@pytest.mark.parametrize(("earlier", "kept"), [(0.9, ["last", "best"]), (0.5, ["last"]), (0.1, ["last"])])
def test_the_last_checkpoint_competes_for_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: float, kept: list[str]
) -> None:
    plan = subject("source_only", tmp_path).plan
    scorer = Scorer(plan, open_plan(plan).val, torch.device("cpu"), tmp_path)
    monkeypatch.setattr(Scorer, "score", lambda *arguments: scored(plan, 0.5))
    entry = {"iteration": 1, "predictor": "student", "values": {plan.task.headline: earlier}}
    monkeypatch.setattr(Scorer, "_kept", lambda self: [entry])
    monkeypatch.setattr(Scorer, "_read", lambda self, _, rule: Scored(scored(plan, earlier), "student", rule, 1))
    found = scorer.final(open_plan(plan).method, lambda name: lambda done, total: None, 2)
    assert [one.checkpoint for one in found] == kept


def scored(plan: Plan, headline: float) -> Evaluation:
    means: Mapping[str, float] = {plan.task.headline: headline}
    return Evaluation((), None, None, dict(means), 0.0, None, None)  # type: ignore[arg-type]


def test_a_record_of_before_these_flags_can_be_read(tmp_path: Path) -> None:
    record = start_run(subject("source_only", tmp_path).plan, tmp_path / "runs").record
    values = json.loads(record.model_dump_json())
    for flag in ("translated_input", "lossy_store"):
        del values["flags"][flag]
    assert type(record).model_validate(values) == record


def test_the_source_can_be_what_is_evaluated(tmp_path: Path) -> None:
    plan = subject("source_only", tmp_path, **{"evaluate.domain": "source", "evaluate.split": "train"}).plan
    shutil.rmtree(tmp_path / "data" / dataset.TARGET)
    record = start_run(plan, tmp_path / "runs").record
    assert (record.protocol["dataset"], record.protocol["split"]) == (dataset.SOURCE, "train")
    assert record.protocol["list_digest"] == record.lists["source"]
    assert record.flags.training_images
    assert "evaluated on the images that it was trained on" in record.flags.described()


def test_an_evaluation_on_other_images_is_not_flagged(tmp_path: Path) -> None:
    record = start_run(subject("oracle", tmp_path).plan, tmp_path / "runs").record
    assert record.protocol["dataset"] == dataset.TARGET
    assert not record.flags.training_images


def test_an_evaluation_knows_what_the_run_began_with(tmp_path: Path) -> None:
    data = write_fake_data(tmp_path / "data")
    roots = {f"data.roots.{name}": data / name for name in (dataset.SOURCE, dataset.TARGET)}
    values = {**SMALL, **roots, "network.name": "lite0", "network.weights": "imagenet"}
    request = Request("source_only", dataset.SOURCE, dataset.TARGET, "quick", values)
    outcome = start_run(make_plan(fake_registry(), request, [FAKES]), tmp_path / "runs")
    again = evaluate_run(outcome.folder, {"evaluate.flip": True}).record
    assert again.network == outcome.record.network
    assert again.network.reports[0].matched > 0
    assert again.flags.imported is None
