"""Several processes train as one: what they compute together, and what happens when one of them fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import world_fakes
import world_parity
from safetensors.torch import load_file
from test_resume import end_of

from udabench.engine.folder import RunFolder
from udabench.engine.metrics import read_metrics
from udabench.results import read_record


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenes, played once."""
    return play_all(tmp_path_factory.mktemp("world"), "main")


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Further methods."""
    return play_all(tmp_path_factory.mktemp("more"), "more")


def play_all(root: Path, which: str) -> Path:
    command = [sys.executable, "-W", "error", str(Path(world_fakes.__file__)), str(root), which]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def told(folder: Path) -> list[Any]:
    """What the ranks of a scene returned."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9].json"))]


# What they compute together


@pytest.mark.parametrize("name", world_parity.PARITY)
def test_two_processes_train_as_one(stage: Path, name: str) -> None:
    """Frozen norms, the same global batch: parameters after five steps, and what was logged of it."""
    differences, folders = compare(stage / name)
    assert max(differences.values()) < 1e-5, max(differences, key=lambda key: differences[key])
    lines = [read_metrics(folder / "metrics.jsonl")[:2] for folder in folders]
    for one, other in zip(*lines, strict=True):
        for key, value in one["values"].items():
            if not key.startswith(("time/", "memory")):
                assert other["values"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    records = [read_record(folder) for folder in folders]
    assert [record.device for record in records] == ["cpu", "2 x cpu"]
    assert records[0].cost.images == records[1].cost.images


def compare(scene: Path) -> tuple[dict[str, float], list[Path]]:
    """Largest differences between the last weights of one process and of two, and the run folders."""
    first, second = told(scene / "2")
    assert first == second
    assert "error" not in first, first
    folders = [next((scene / size).glob("*/*/run.json")).parent for size in ("1", "2")]
    alone, shared = (load_file(folder / "checkpoints" / "5" / "model.safetensors") for folder in folders)
    assert alone.keys() == shared.keys()
    differences = {key: float((alone[key].double() - shared[key].double()).abs().max()) for key in alone}
    print(f"{scene.name}: the largest difference is {max(differences.values()):.1e}")
    return differences, folders


@pytest.mark.slow
@pytest.mark.parametrize("name", world_parity.MORE)
def test_two_processes_train_other_methods_as_one(more: Path, name: str) -> None:
    differences, _ = compare(more / name)
    assert max(differences.values()) < 1e-5, max(differences, key=lambda key: differences[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", world_parity.LEARNING)
def test_norms_that_learn_are_the_same_on_every_rank(more: Path, name: str) -> None:
    first, second = told(more / name / "2")
    assert "error" not in first, first
    assert first == second


@pytest.mark.gpu
def test_norms_of_all_gpus(tmp_path: Path) -> None:
    """With ``sync_norms`` two processes train as one although norms learn."""
    stage = play_all(tmp_path, "gpu")
    for rank in told(stage / "sync_norms"):
        assert rank["kinds"] == ["Conv2d", "SyncBatchNorm"]
        assert max(rank["differences"]) < 1e-5
    differences, _ = compare(stage / "gpu")
    assert max(differences.values()) < 1e-4, max(differences, key=lambda key: differences[key])


def test_the_functions_of_the_world(stage: Path) -> None:
    ranks = told(stage / "functions")
    assert [rank.pop("place") for rank in ranks] == [[0, 2, True], [1, 2, False]]
    assert [rank.pop("own") for rank in ranks] == [[0, 1], [2, 3]]
    assert ranks[0] == ranks[1]
    assert ranks[0] == {
        "total": [3, 20],
        "per_rank": [0.5, 0.5],
        "gather": [1, 10, 2, 10],
        "gather_flags": [False, True],
        "gather_values": ["rank 0", "rank 1"],
        "highest": 7,
        "spread": [0, 0],
        "order": "01",
    }


def test_gradients_are_averaged(stage: Path) -> None:
    for rank in told(stage / "gradients"):
        assert rank["averaged"] == [[1.5, 4.5], [2, 3], None]


def test_running_statistics_are_averaged(stage: Path) -> None:
    """Means 1 and 3, variance 4/3 (unbiased, of 0 2 0 2 and 2 4 2 4), momentum 1/2."""
    for rank in told(stage / "running"):
        assert rank["mean"] == [1, 0]
        assert rank["var"] == pytest.approx([0.5 + 0.5 * 4 / 3, 1])


def test_norms_are_exchanged_where_they_are(stage: Path) -> None:
    for rank in told(stage / "converted"):
        kinds = ["Conv2d", "Dropout2d", "FakeNetwork", "SyncBatchNorm"]
        assert rank == {"kept": True, "keys": True, "kinds": kinds}


def test_a_pass_shares_what_it_treats_image_by_image(stage: Path) -> None:
    ranks = told(stage / "passes")
    assert [rank["treated"] for rank in ranks] == [["one", "three"], ["two"]]
    for rank in ranks:
        assert rank["gathered"] == ["one", "two", "three"]
        assert rank["read"] == ranks[0]["read"]
        assert rank["sum"] == pytest.approx(sum(rank["read"]))
        assert rank["again"] == []


def test_an_evaluation_is_that_of_one_process(stage: Path) -> None:
    (alone,), ranks = told(stage / "alone"), told(stage / "evaluation")
    assert alone.pop("seen") == [2, 2, 1]
    assert [rank.pop("seen") for rank in ranks] == [[2, 1], [2]]
    assert ranks == [alone, alone]


# When one of them fails


def test_a_number_that_is_none_on_one_rank_ends_all(stage: Path) -> None:
    ranks = told(stage / "poisoned")
    assert ranks[0] == ranks[1]
    assert ranks[0]["error"] == "UserError"
    assert "loss 'source' is not finite at iteration 2 (source = nan" in ranks[0]["message"]
    # The images of the rank where it was seen.
    assert "images: two, two)" in ranks[0]["message"]
    found = json.loads((stage / "poisoned" / "failure" / "failure.json").read_text())
    assert found["iteration"] == 2


def test_a_signal_to_one_rank_stops_all_at_the_same_step(stage: Path) -> None:
    before = json.loads((stage / "stopped" / "before.json").read_text())
    assert before["error"] == "Stopped"
    assert "Stopped by SIGTERM at iteration 3; the checkpoint of iteration 3 is saved" in before["message"]


def test_a_killed_rank_ends_the_others(stage: Path) -> None:
    before = json.loads((stage / "killed" / "before.json").read_text())
    assert before["error"] == "PeerLost"
    assert "Process 0 of 2 lost another one" in before["message"]


@pytest.mark.parametrize("accident", ["stopped", "killed"])
def test_what_goes_on_ends_bit_identical(stage: Path, accident: str) -> None:
    whole, resumed = end_of(stage / "whole"), end_of(stage / accident)
    assert whole["counters"]["total"] == 13  # type: ignore[index]
    # A step counts the images of all ranks.
    assert whole["counters"]["images_seen"] == 13 * 4  # type: ignore[index]
    for part in whole:
        assert resumed[part] == whole[part], part
    assert RunFolder(stage / accident).read_run()["sessions"] == 2


def test_every_rank_ends_with_the_same_state(stage: Path) -> None:
    for scene in ("whole", "stopped", "killed"):
        first, second = told(stage / scene)
        assert first == second
