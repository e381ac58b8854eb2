"""One run by two processes, through torchrun and the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from udabench.results import read_record
from udabench.testing import FAKES, write_fake_data

VALUES = {
    "network.weights": "none",
    "data.workers": 1,
    "data.crop": "32x32",
    "engine.checkpoint_every": 2,
    "engine.log_every": 1,
    "engine.eval_every": 6,
}


class Torchrun:
    """Starts two processes of the command line on the fakes, one thread each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_fake_data(folder / "data")
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "UDABENCH_DATA": str(folder / "data")}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [sys.executable, "-W", "error", *torchrun, "-m", "udabench", *arguments, "--plugin", str(FAKES)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, runs: str, iterations: int, **values: object) -> list[str]:
        overrides = [f"--set={key}={value}" for key, value in {**VALUES, **values}.items()]
        return [
            "run", "--method", "source_only", "--preset", "quick", "--source", "fake-source", "--target", "fake-target",
            "--network", "fake", "--device", "cpu", "--runs", str(self.folder / runs), f"--iterations={iterations}",
            *overrides,
        ]  # fmt: skip

    def ranks(self, process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
        """The processes of the run, without their loaders."""
        children = psutil.Process(process.pid).children()
        return {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}

    def folder_of(self, runs: str) -> Path:
        return next((self.folder / runs).glob("*/*/run.json")).parent

    def at_checkpoint(self, runs: str, iteration: int) -> Path:
        """The run's folder, as soon as it holds that checkpoint."""
        for _ in range(1200):
            found = list((self.folder / runs).glob(f"*/*/checkpoints/{iteration}"))
            if found:
                return found[0].parents[1]
            time.sleep(0.05)
        raise AssertionError(f"no checkpoint of iteration {iteration}")


@pytest.fixture
def torchrun(tmp_path: Path) -> Torchrun:
    return Torchrun(tmp_path)


def test_a_batch_that_does_not_divide_is_refused_once(torchrun: Torchrun) -> None:
    process = torchrun.start(*torchrun.run("runs", 4, **{"data.source_batch": 3}))
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error:" not in said
    assert errors.count("error: data.source_batch = 3 does not divide by the 2 processes that train together.") == 1
    assert "udabench/" not in errors
    assert not (torchrun.folder / "runs").exists()


@pytest.mark.slow
def test_other_commands_are_for_one_process(torchrun: Torchrun) -> None:
    process = torchrun.start("methods")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.count("error: torchrun is for run and resume; start 'udabench methods' without it.") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_goes_on_after_the_end_of_one_process(torchrun: Torchrun, number: int) -> None:
    iterations = 200
    process = torchrun.start(*torchrun.run("whole", iterations))
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert said.count("run folder") == 1
    assert f"train {iterations}/{iterations}" in errors
    assert errors.count("Stage train") == 1

    process = torchrun.start(*torchrun.run("ended", iterations))
    folder = torchrun.at_checkpoint("ended", 10)
    torchrun.ranks(process)[1].send_signal(number)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert not read(folder)
    expected = "Stopped by SIGTERM at iteration" if number == signal.SIGTERM else "Process 0 of 2 lost another one"
    assert errors.count(expected) == errors.count("error: ") == 1

    process = torchrun.start("resume", str(folder), "--device", "cpu")
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors.count("Going on from the checkpoint of iteration") == 1
    assert read(folder) == read(torchrun.folder_of("whole"))


def read(folder: Path) -> object:
    """What a finished run ended with; None while it has not."""
    if not (folder / "record.json").is_file():
        return None
    last = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    weights = load_file(last / "model.safetensors")
    return read_record(folder).outcome_digest, {key: value.tobytes() for key, value in weights.items()}
