"""SIGKILL at any moment; what goes on ends bit-identical."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import engine_fakes
import pytest
import torch
from engine_fakes import FakeMethod, config_of, run

from udabench.engine.checkpoint import Checkpoints
from udabench.engine.folder import RunFolder
from udabench.engine.metrics import read_metrics
from udabench.engine.train import load_trained
from udabench.errors import CheckpointError


def serve(root: Path, *points: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(engine_fakes.__file__)), str(root), *points],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def end_of(folder: Path) -> dict[str, object]:
    """All of a run that must not depend on kills."""
    checkpoint = Checkpoints(folder / "checkpoints").latest()
    assert checkpoint is not None
    timeless = {
        key: value
        for key, value in checkpoint.state["counters"].items()
        if not key.endswith("_seconds") and key != "peak_memory"
    }
    metrics = [
        {**entry, "values": {k: v for k, v in entry["values"].items() if not k.startswith(("time/", "memory"))}}
        for entry in read_metrics(folder / "metrics.jsonl")
    ]
    artefacts = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "artefacts").rglob("*"))
        if path.is_file()
    }
    ends = {path.parent.name: path.read_bytes() for path in (folder / "stages").glob("*/model.safetensors")}
    assert list(ends) == ["warm"]
    return {
        "model": {k: v.numpy().tobytes() for k, v in checkpoint.model().items()},
        "optimizers": {k: v.numpy().tobytes() for k, v in checkpoint.optimizers().items()},
        "counters": timeless,
        "watchdog": checkpoint.state["watchdog"],
        "metrics": metrics,
        "artefacts": artefacts,
        "ends": ends,
        "checkpoints": sorted(p.name for p in (folder / "checkpoints").iterdir()),
    }


def check_series(root: Path, points: list[str]) -> None:
    assert "never reached" not in serve(root, *points)
    whole = end_of(root / "whole")
    assert whole["counters"]["total"] == 13  # type: ignore[index]
    for point in points:
        resumed = end_of(root / point)
        for part in whole:
            assert resumed[part] == whole[part], f"{part} after {point}"


def test_a_killed_run_ends_bit_identical(tmp_path: Path) -> None:
    check_series(tmp_path, ["rename:9", "rename:22", "fsync:40", "fsync:77", "random:3"])


@pytest.mark.slow
def test_a_run_killed_many_times_ends_bit_identical(tmp_path: Path) -> None:
    renames = [f"rename:{number}" for number in range(1, 41, 2)]
    syncs = [f"fsync:{number}" for number in range(1, 100, 4)]
    check_series(tmp_path, [*renames, *syncs, "random:12", "random:14"])


def test_a_complete_run_returns_at_once_with_its_weights(tmp_path: Path) -> None:
    method, first = run(tmp_path)
    again, second = run(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert (first.iterations, second.iterations) == (13, 13)
    assert RunFolder(tmp_path).read_run()["sessions"] == 2
    assert first.images_seen == second.images_seen == 13 * 4


def test_trained_weights_are_loaded(tmp_path: Path) -> None:
    method, _ = run(tmp_path)
    fresh = FakeMethod()
    checkpoint = load_trained(fresh, config_of(), RunFolder(tmp_path), engine_fakes.DEVICE)
    assert checkpoint.path.name == "13"
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_trained(FakeMethod(), config_of(), RunFolder(tmp_path), engine_fakes.DEVICE)


def test_another_seed_or_configuration_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    for changed in (
        config_of().model_copy(update={"seed": 1}),
        config_of().model_copy(update={"iterations": 7}),
    ):
        with pytest.raises(CheckpointError, match="belongs to the configuration"):
            run(tmp_path, config=changed)


def test_a_damaged_last_checkpoint_falls_back_and_says_so(tmp_path: Path) -> None:
    method, _ = run(tmp_path)
    broken = tmp_path / "checkpoints" / "13" / "model.safetensors"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    again, _ = run(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), again.state_dict().values(), strict=True)
    )
    log = (tmp_path / "log.txt").read_text()
    assert "checkpoints/13 is damaged" in log
    assert "Going on from the checkpoint of iteration 12." in log
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["12", "13", "damaged-13"]


def test_all_checkpoints_damaged_is_an_error_and_nothing_is_lost(tmp_path: Path) -> None:
    run(tmp_path)
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    for state in (tmp_path / "checkpoints").glob("*/state.json"):
        state.write_text("{")
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be used"):
        run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_metrics_and_artefacts_of_a_lost_future_are_dropped(tmp_path: Path) -> None:
    run(tmp_path)
    whole = end_of(tmp_path)
    for number in ("13", "12"):
        (tmp_path / "checkpoints" / number / "model.safetensors").unlink()
    kept = engine_fakes.FakeMethod()
    with pytest.raises(CheckpointError):
        run(tmp_path, kept)

    other = tmp_path / "other"
    run(other, config=config_of(keep_checkpoints=20))
    assert (other / "artefacts" / "adapt" / "6").is_dir()
    for number in (8, 10, 11, 12, 13):
        (other / "checkpoints" / str(number) / "state.json").unlink()
    data = engine_fakes.FakeData(RunFolder(other), list(kept.stages()))
    seen: list[list[str]] = []

    def spy(*arguments: object) -> object:
        seen.append(sorted(p.name for p in (other / "artefacts" / "adapt").iterdir()))
        return data.batches(*arguments)  # type: ignore[arg-type]

    run(other, config=config_of(keep_checkpoints=2), open_batches=spy)
    # From iteration 6 of the run, the second of stage adapt: its refreshes at 3 and 6 are made again.
    assert seen[0] == ["0"]
    assert data.opened[0] == ("adapt", 0, 1, 3)
    assert end_of(other)["metrics"] == whole["metrics"]
    assert end_of(other)["model"] == whole["model"]
