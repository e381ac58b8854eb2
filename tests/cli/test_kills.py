"""SIGKILL at random moments, through the command line: what is resumed ends with the same weights and record."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from udabench.results import read_record
from udabench.testing import FAKES, write_fake_data

ITERATIONS = 24
VALUES = {
    "network.weights": "none",
    "data.workers": 1,
    "engine.checkpoint_every": 2,
    "engine.log_every": 1,
    "engine.eval_every": 6,
    "engine.panel_every": 8,
    "data.crop": "32x32",
    "queries": 8,
    "negatives": 16,
}


class Machine:
    """Runs the command line with the fakes, one thread a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        data = folder / "data"
        write_fake_data(data)
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "UDABENCH_DATA": str(data)}

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "udabench", *arguments, "--plugin", str(FAKES), "--device", "cpu"]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )

    def run(self, runs: Path) -> list[str]:
        overrides = [part for key, value in VALUES.items() for part in ("--set", f"{key}={value}")]
        return [
            "run", "--method", "t2sda", "--preset", "quick", "--source", "fake-source", "--target", "fake-target",
            "--network", "fake", "--iterations", str(ITERATIONS), "--runs", str(runs), *overrides,
        ]  # fmt: skip

    def finish(self, *arguments: str) -> None:
        process = self.start(*arguments)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()

    def kill_after(self, seconds: float, *arguments: str) -> bool:
        """Whether the process was still alive when it was killed."""
        process = self.start(*arguments)
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return True
        assert process.returncode == 0, said.decode()
        return False


def outcome_of(runs: Path) -> tuple[str, dict[str, bytes]]:
    folder = next(runs.glob("*/*/record.json")).parent
    weights = load_file(folder / "checkpoints" / str(ITERATIONS) / "model.safetensors")
    return read_record(folder).outcome_digest, {key: value.tobytes() for key, value in weights.items()}


def kill_series(folder: Path, kills: int, seed: int) -> int:
    """Kill a run again and again at random moments until it has been killed often enough, then let it end."""
    machine = Machine(folder)
    began = time.perf_counter()
    machine.finish(*machine.run(folder / "whole"))
    whole = time.perf_counter() - began
    expected = outcome_of(folder / "whole")
    draw, done, attempt = random.Random(seed), 0, 0
    while done < kills:
        runs = folder / f"killed-{attempt}"
        attempt += 1
        while done < kills:
            stored = next(iter(runs.glob("*/*/run.json")), None)
            command = ["resume", str(stored.parent)] if stored else machine.run(runs)
            if not machine.kill_after(draw.uniform(0.3 * whole, 1.05 * whole), *command):
                break
            done += 1
        stored = next(iter(runs.glob("*/*/run.json")), None)
        machine.finish(*(["resume", str(stored.parent)] if stored else machine.run(runs)))
        assert outcome_of(runs) == expected
    return done


def test_a_few_kills(tmp_path: Path) -> None:
    assert kill_series(tmp_path, kills=2, seed=0) == 2


@pytest.mark.slow
def test_many_kills(tmp_path: Path) -> None:
    assert kill_series(tmp_path, kills=20, seed=1) == 20
