"""A run that begins from another one: what it takes over, what it trains, what it refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from generations import Home, listing, same, weights

from udabench.cli.dry_run import print_dry_run
from udabench.engine.files import DiskFull
from udabench.engine.folder import RunFolder
from udabench.errors import CheckpointError, UsageError
from udabench.results import read_record
from udabench.run import takeover
from udabench.run.ancestor import without_ancestor
from udabench.run.conduct import resume_run, start_run
from udabench.run.heritage import find_heritage


def test_a_second_generation_goes_on_where_the_first_ended(home: Home, tmp_path: Path) -> None:
    before = listing(home.one)
    values = {"generations": 2, "init_from": home.one}
    folder = start_run(home.plan(**values), tmp_path / "two").folder
    whole = home.run("whole", generations=2)
    assert same(weights(folder), weights(whole))
    assert listing(folder / "artefacts") == listing(whole / "artefacts")
    assert listing(home.one) == before
    record, alone = read_record(folder), read_record(whole)
    assert record.evaluations == alone.evaluations
    assert record.passes == alone.passes
    ancestor = record.flags.ancestor
    assert ancestor is not None
    assert ancestor.stages == ("warm", "label-1", "adapt-1")
    assert (record.cost.iterations, ancestor.iterations) == (7, 5)
    assert record.cost.images == 2 * 2 + 2 * 2
    assert ancestor.outcome == read_record(home.one).outcome_digest
    assert "warm, label-1, adapt-1 (5 steps) are taken over" in ancestor.described()
    assert "init_from" not in record.config


def test_the_hash_is_of_the_ancestor_not_of_its_place(home: Home, tmp_path: Path) -> None:
    moved = shutil.copytree(home.one, tmp_path / "elsewhere")
    here, there = (home.plan(generations=2, init_from=path).config for path in (home.one, moved))
    assert here.hash == there.hash
    assert here.hash != home.plan(generations=2).config.hash
    other = home.run("other", **{"generations": 1, "optim.lr": 1e-2})
    assert home.plan(generations=2, init_from=other).config.hash != here.hash


def test_what_begins_from_each_seed_of_a_row_is_a_row(home: Home) -> None:
    again = home.run("again", generations=1, seed=1)
    first = home.plan(generations=2, init_from=home.one).config
    second = home.plan(generations=2, init_from=again, seed=1).config
    assert first.hash == second.hash
    assert home.plan(generations=2, init_from=again).config.hash != first.hash
    assert home.plan(generations=2, init_from=home.one, seed=1).config.hash != first.hash


@pytest.mark.parametrize(
    ("values", "taken", "reason"),
    [
        ({"generations": 2}, "warm label-1 adapt-1", "stage 'label-2' is new"),
        ({"weight": 0.5}, "warm label-1", "stage 'adapt-1' may depend on settings.weight (1.0 there, 0.5 here)"),
        ({"generations": 2, "weight": 0.5}, "warm label-1", "stage 'adapt-1' may depend on settings.weight"),
        ({"generations": 2, "iterations": 100, "evaluate.flip": True}, "warm label-1 adapt-1", "is new"),
    ],
)
def test_stages_are_taken_over_up_to_the_first_that_may_differ(
    home: Home, values: dict[str, Any], taken: str, reason: str
) -> None:
    found = home.heritage(**values)
    assert " ".join(found.stages) == taken
    assert reason in found.next


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"generations": 2, "smooth": 0.1}, r"stage 'warm' may depend on settings.smooth \(0.0 there, 0.1 here\)"),
        ({"generations": 2, "optim.lr": 1e-2}, r"stage 'warm' may depend on optim.lr \(0.001 there, 0.01 here\)"),
        ({"generations": 2, "warm": 4}, "stage 'warm' may depend on settings.warm"),
        ({}, "every stage of this run .* is done there"),
        ({"generations": 0}, "every stage of this run .* is done there"),
    ],
)
def test_a_run_that_can_take_over_nothing_says_why(home: Home, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        home.heritage(**values)


def test_a_branch_at_an_earlier_stage_is_the_run_that_was_trained_whole(home: Home, tmp_path: Path) -> None:
    values = {"weight": 0.5, "init_from": home.one}
    folder = start_run(home.plan(**values), tmp_path / "branch").folder
    whole = home.run("branch-whole", weight=0.5)
    assert same(weights(folder), weights(whole))
    assert read_record(folder).evaluations == read_record(whole).evaluations


def test_another_method_begins_with_the_headline_network(home: Home, tmp_path: Path) -> None:
    folder = start_run(home.plan("source_only", **{"init_from": home.one, "optim.lr": 1e-9}), tmp_path).folder
    theirs, ours = weights(home.one), weights(folder)
    network = {key.removeprefix("network."): value for key, value in theirs.items() if key.startswith("network.")}
    trained = {key.removeprefix("student."): value for key, value in ours.items()}
    assert network.keys() == trained.keys()
    learned = [key for key in network if key.endswith(("weight", "bias"))]
    assert learned
    assert all(torch.allclose(network[key], trained[key], atol=1e-6) for key in learned)
    record = read_record(folder)
    assert record.flags.ancestor is not None
    assert record.flags.ancestor.stages == ()
    assert record.network.reports[0].source.startswith("network (student) of generations-quick-fake-")
    assert record.cost.iterations == 8


def test_a_descendant_begins_each_generation_with_the_weights_of_its_first_ancestor(home: Home, tmp_path: Path) -> None:
    warm = home.run("warm", "source_only")
    first = start_run(home.plan(generations=1, init_from=warm), tmp_path / "a").folder
    both = start_run(home.plan(generations=2, init_from=warm), tmp_path / "b").folder
    second = start_run(home.plan(generations=2, init_from=first), tmp_path / "c").folder
    assert same(weights(second), weights(both))
    assert not same(weights(second), weights(home.run("plain", generations=2)))


def test_a_run_goes_on_without_its_ancestor(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ancestor = shutil.copytree(home.one, tmp_path / "ancestor")
    planned = home.plan(generations=2, init_from=ancestor)

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("udabench.run.conduct._carry_out", die)
        with pytest.raises(KeyboardInterrupt):
            start_run(planned, tmp_path / "runs")
    shutil.rmtree(ancestor)
    (stored,) = (tmp_path / "runs").glob("*/*/run.json")
    outcome = resume_run(stored.parent)
    assert same(weights(outcome.folder), weights(home.run("whole-again", generations=2)))
    assert outcome.record.flags.ancestor is not None


@pytest.mark.parametrize("call", range(1, 12, 2))
def test_a_kill_in_the_take_over_loses_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    planned = home.plan(generations=2, init_from=home.one)
    calls, link = [0], os.link

    def dying(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        link(*arguments)

    before = listing(home.one)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", dying)
        patch.setattr("udabench.run.conduct._carry_out", lambda opened, folder: folder)
        with pytest.raises(KeyboardInterrupt):
            start_run(planned, tmp_path / "runs")
    assert not list(tmp_path.glob("runs/*/*/run.json"))
    assert listing(home.one) == before
    folder = start_run(planned, tmp_path / "runs").folder
    assert read_record(folder).flags.ancestor is not None


def test_no_space_for_what_is_taken_over(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    planned = home.plan(generations=2, init_from=home.one)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(DiskFull, match=r"what is taken over from .* then start the run again"):
        start_run(planned, tmp_path / "runs")
    assert not list(tmp_path.glob("runs/*/*/run.json"))


def test_copies_where_there_are_no_links(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crossing(*arguments: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    found = home.heritage(generations=2)
    monkeypatch.setattr(os, "link", crossing)
    folder = RunFolder(tmp_path / "run")
    takeover.take_over(found, folder, home.plan(generations=2).config)
    assert listing(folder.artefacts) == listing(RunFolder(home.one).artefacts)


def test_an_unfinished_ancestor_is_refused(home: Home, tmp_path: Path) -> None:
    folder = shutil.copytree(home.one, tmp_path / "unfinished")
    (folder / "record.json").unlink()
    RunFolder(folder).update_run(status="stopped")
    with pytest.raises(UsageError, match=r"has not ended \(it is stopped, at iteration 5 of 8\).*udabench resume"):
        home.plan(generations=2, init_from=folder)


def test_what_is_no_run_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is no run folder"):
        home.plan(init_from=tmp_path)


def test_another_network_or_other_classes_are_refused(home: Home) -> None:
    with pytest.raises(UsageError, match="this run's network is fake, not lite0"):
        home.heritage("source_only", **{"network.name": "lite0"})
    with pytest.raises(UsageError, match=r"network is fake, not fake \(wide=1\)"):
        home.heritage("source_only", **{"network.options": {"wide": 1}})
    with pytest.raises(UsageError, match=r"19 classes \(cityscapes19\) are not the 16"):
        home.heritage("source_only", **{"data.classes": "synthia16"})


def test_missing_and_damaged_checkpoints_are_named(home: Home, tmp_path: Path) -> None:
    folder = shutil.copytree(home.one, tmp_path / "ancestor")
    shutil.rmtree(folder / "stages")
    with pytest.raises(CheckpointError, match="the state at the end of stage 'label-1' is not there any more"):
        find_heritage(home.plan(weight=0.5, init_from=folder))
    model = folder / "checkpoints" / "5" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        home.plan(generations=2, init_from=folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(CheckpointError, match="has no checkpoint any more"):
        home.plan(generations=2, init_from=folder)


def test_the_digest_cannot_be_stated(home: Home) -> None:
    with pytest.raises(UsageError, match="'ancestor' follows from init_from"):
        home.plan(ancestor="0" * 64)


def test_whoever_begins_from_the_oracle_has_seen_the_labels(home: Home, tmp_path: Path) -> None:
    oracle = home.run("oracle", "oracle")
    record = start_run(home.plan("source_only", init_from=oracle), tmp_path / "a").record
    assert record.flags.target_labels
    (folder,) = tmp_path.glob(f"a/*/{record.run}")
    found = find_heritage(home.plan("generations", init_from=folder))
    assert found is not None
    assert found.target_labels


@pytest.mark.parametrize("method", ["cbst", "bicl", "proda"])
def test_who_labels_with_an_untrained_network_is_warned(
    home: Home, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone or inside of another method; not where the run begins from a trained one, or trains on the source first."""
    at_once = home.plan(method, **{"settings.warmup_share": 0})
    assert "--init-from RUN" in (without_ancestor(at_once.config) or "")
    assert without_ancestor(home.plan(method, addons="sam", warmup_share=0).config)
    assert without_ancestor(home.plan(method, **{"settings.warmup_share": 0.5}).config) is None
    assert without_ancestor(home.plan(method, warmup_share=0, init_from=home.one).config) is None
    assert without_ancestor(home.plan("source_only").config) is None
    print_dry_run([at_once], tmp_path)
    assert f"warning {method} with these settings begins with what its network says" in capsys.readouterr().out


def test_the_warning_is_also_said_when_the_run_starts(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_run(home.plan("cbst", **{"settings.warmup_share": 0, "iterations": 3}), tmp_path / "runs")
    assert "warning  cbst with these settings begins with what its network says" in capsys.readouterr().err
