"""Checkpoints that are chosen without labels: in the record beside the last, never its headline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from udabench.cli.show import show
from udabench.evaluate.evaluator import Evaluation
from udabench.leaderboard.rows import group
from udabench.leaderboard.tables import others
from udabench.method import Method
from udabench.run.conduct import open_plan, start_run
from udabench.run.scoring import Scorer
from udabench.testing.subject import Subject

QUIET = {"engine.device": "cpu", "engine.threads": 1}


def _final(folder: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[int, tuple[float, float]]) -> dict[str, int]:
    """Rule -> iteration, where each evaluation finds (entropy, density) of ``seen``; the last one comes at the end."""
    plan = Subject("source_only", None, folder, QUIET).plan
    opened = open_plan(plan)
    scorer, method = Scorer(plan, opened.val, torch.device("cpu"), folder), opened.method.eval()
    found = scorer.score(method, method.predict)

    def at(iteration: int) -> None:
        values = dict(zip(("entropy", "snd"), seen[iteration], strict=True))
        monkeypatch.setattr(Scorer, "score", lambda *arguments: replace(found, unlabelled=values))

    *before, last = seen
    for iteration in before:
        at(iteration)
        scorer.during(method, iteration)
    at(last)
    scored = scorer.final(method, lambda name: lambda done, total: None, last)
    assert scored[0].checkpoint == "last"
    rules = {one.checkpoint: one for one in scored[1:]}
    for rule, one in rules.items():
        assert one.evaluation.unlabelled == dict(zip(("entropy", "snd"), seen[one.iteration], strict=True)), rule
        assert (one.evaluation.matrices == found.matrices).all()
    return {rule: one.iteration for rule, one in rules.items()}


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        ({2: (0.5, 1.0), 4: (0.3, 2.0), 10: (0.4, 3.0)}, {"entropy": 4, "snd": 10}),
        ({2: (0.5, 3.0), 4: (0.3, 2.0), 10: (0.2, 1.0)}, {"entropy": 10, "snd": 2}),
        ({10: (0.2, 1.0)}, {}),
    ],
)
def test_each_rule_chooses_among_all_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[int, tuple[float, float]], chosen: dict[str, int]
) -> None:
    assert _final(tmp_path, monkeypatch, seen) == chosen


def test_a_run_reports_them_beside_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Subject("source_only", None, tmp_path, {**QUIET, "iterations": 3, "engine.eval_every": 1}).plan
    outcome = start_run(plan, tmp_path / "runs")
    record = outcome.record
    assert record.headline.checkpoint == "last"
    scores = {score.checkpoint: score for score in record.evaluations}
    assert {"entropy", "snd"} <= set(scores)
    assert min(score.unlabelled["entropy"] for score in record.evaluations) == scores["entropy"].unlabelled["entropy"]
    assert max(score.unlabelled["snd"] for score in record.evaluations) == scores["snd"].unlabelled["snd"]
    assert record.flags.unlabelled_selection
    assert any("entropy and snd were selected on the evaluation images without" in s for s in record.flags.described())
    logged = (outcome.folder / "metrics.jsonl").read_text()
    assert '"eval/unlabelled entropy"' in logged
    cells = [line.cells[4] for line in others(group([record])).lines]
    assert {"entropy (selection without labels)", "snd (selection without labels)"} <= set(cells)
    assert show.callback is not None
    show.callback(outcome.folder, False, None)
    shown = capsys.readouterr().out
    assert "student (entropy)" in shown
    assert "student (snd)" in shown


def test_a_run_without_evaluations_in_between_has_no_choice(tmp_path: Path) -> None:
    record = start_run(Subject("source_only", None, tmp_path, {**QUIET, "iterations": 1}).plan, tmp_path / "r").record
    assert {score.checkpoint for score in record.evaluations} == {"last"}
    assert not record.flags.unlabelled_selection
    assert set(record.headline.unlabelled) == {"entropy", "snd"}


def test_labels_play_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The criteria are the same, whatever the labels are."""

    def criteria(labels: Any) -> Evaluation:
        plan = Subject("source_only", None, tmp_path / str(labels), QUIET).plan
        opened = open_plan(plan)
        method: Method = opened.method.eval()
        if labels is not None:
            usual = type(opened.val).read_ids
            monkeypatch.setattr(type(opened.val), "read_ids", lambda self, name: usual(self, name) * 0 + labels)
        return Scorer(plan, opened.val, torch.device("cpu"), tmp_path).score(method, method.predict)

    true, false = criteria(None), criteria(3)
    assert true.unlabelled == false.unlabelled
    assert (true.matrices != false.matrices).any()
