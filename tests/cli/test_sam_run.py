"""A run of SAM from the command line: what is measured in each of its trainings, and how a diverging one ends."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
RUN = [
    "run", "-m", "sam", "-s", "toycity", "-t", "toycity-real", "--preset", "quick", "--device", "cpu", "--iterations",
    "6", "--runs", "runs", "--eval-every", "2", "--probe", "entropy",
]  # fmt: skip
SETTINGS = {
    "network.weights": "none", "data.workers": 0, "data.source_options": "{length: 4}",
    "data.target_options": "{length: 4}", "data.crop": "64x64", "evaluate.limit": 2, "engine.checkpoint_every": 2,
    "engine.log_every": 1,
}  # fmt: skip


def run(udabench: Call, more: Sequence[object] = (), **settings: object) -> Any:
    stated = [word for key, value in (SETTINGS | settings).items() for word in ("--set", f"{key}={value}")]
    return udabench(*RUN, *stated, *more)


def logged(folder: Path, key: str) -> list[str]:
    """The stages whose log has it."""
    (file,) = folder.rglob("metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["stage"] for line in lines if key in line["values"]]


@pytest.mark.slow
def test_entropies_of_each_training(udabench: Call, tmp_path: Path) -> None:
    """And another reading goes on from the module, the source-only network and the labels of the first."""
    said = run(udabench)
    assert said.code == 0, said.text
    assert logged(tmp_path, "eval/entropy of incorrect pixels") == ["attention", "baseline"]
    assert logged(tmp_path, "logits/target") == ["adapt-1", "adapt-1"]
    assert "entropy of correct pixels" in said.text
    (first,) = tmp_path.glob("runs/*/*")
    said = run(udabench, more=["--init-from", first], sa_target="attended", sa_space="logits")
    assert said.code == 0, said.text
    (second,) = set(tmp_path.glob("runs/*/*")) - {first}
    assert logged(second, "logits/target") == ["adapt-1", "adapt-1"]
    assert not logged(second, "loss/attention")


def test_a_diverging_run_keeps_its_last_checkpoint(udabench: Call, tmp_path: Path) -> None:
    said = run(udabench, sa_limit=1e-6, sa_space="logits")
    assert said.code == 1
    assert "The logits diverge: the mean of |Z| of source images" in said.text
    assert "sa_space=probabilities" in said.text
    assert "Traceback" not in said.text
    (folder,) = tmp_path.rglob("checkpoints")
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4"]
    assert json.loads((folder.parent / "run.json").read_text())["status"] == "failed"
