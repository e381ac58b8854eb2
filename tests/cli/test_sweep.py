"""``udabench sweep``: plans, refusals, whole sweeps, and what a kill loses."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from udabench.cli import cli
from udabench.engine.folder import RunFolder
from udabench.engine.metrics import read_metrics
from udabench.errors import UsageError, UserError
from udabench.plugins import load_registry
from udabench.results import Record, read_record
from udabench.run.setup import bare_method
from udabench.sweep import duration
from udabench.sweep.duration import Finding
from udabench.sweep.file import read_sweep
from udabench.sweep.job import make_jobs
from udabench.testing import FAKES, write_fake_data

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
SMALL = LEADERBOARDS / "small.yaml"
VALUES = {
    "network.weights": "none",
    "data.crop": "32x32",
    "data.workers": 0,
    "engine.log_every": 1,
    "engine.checkpoint_every": 1000,
}
FILE = """
sources: fake-source
targets: fake-target
preset: quick
network: fake
set: {network.weights: none, data.crop: 32x32, iterations: 2}
rows:
  - {method: source_only, seeds: [0, 1]}
  - {method: oracle}
"""

FAMILY = """
sources: fake-source
targets: fake-target
seeds: 1
preset: quick
network: fake
set: {network.weights: none, data.crop: 32x32, data.workers: 0, iterations: 2}
rows:
  - {method: generations, label: second, init_from: first, set: {generations: 2}}
  - {method: generations, label: first, init_from: source_only}
  - method: source_only
"""
GENERATIONS = Path(__file__).parents[1] / "run" / "generations_plugin.py"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))
    monkeypatch.setenv("UDABENCH_DATA", str(write_fake_data(tmp_path / "data")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built for the plan's sake."""
    monkeypatch.setattr(duration, "_built", lambda requests, plugins: [Finding(seconds=60.0)] * len(requests))


def sweep(*arguments: str) -> None:
    cli.main(["sweep", *arguments, "--plugin", str(FAKES), "--yes"], standalone_mode=False)


def asked(*methods: str, iterations: int = 2, seeds: str = "0") -> list[str]:
    overrides = [f"--set={key}={value}" for key, value in {**VALUES, "iterations": iterations}.items()]
    return [
        "--methods", ",".join(methods), "--sources", "fake-source", "--targets", "fake-target", "--seeds", seeds,
        "--preset", "quick", "--network", "fake", *overrides,
    ]  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def plan_rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip().startswith("fake-source-fake-target")]


def test_a_plan_starts_nothing(place: Path, unbuilt: None, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(*asked("source_only", "dacs", seeds="0,1,2"), "--grid", "optim.lr=0.1,0.2", "--jobs", "2", "--dry-run")
    said = capsys.readouterr().out
    assert [row[1:3] for row in plan_rows(said)] == [
        [method, f"optim.lr={lr}"] for method in ("source_only", "dacs") for lr in (0.1, 0.2)
    ]
    # Two share the processor: 120 s each, and 12 of them in two rows.
    assert "12 runs, 12 to do, 2 side by side: about 12.0 min" in said
    assert not (place / "runs").exists()


def test_options_choose_among_a_files_runs_and_set_changes_all(
    place: Path, unbuilt: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "s.yaml").write_text(FILE)
    sweep("s.yaml", "--dry-run")
    whole = plan_rows(capsys.readouterr().out)
    assert [(row[1], row[3]) for row in whole] == [("source_only", "0,1"), ("oracle", "0")]
    sweep("s.yaml", "--methods", "source_only", "--seeds", "1", "--set", "iterations=3", "--dry-run")
    (row,) = plan_rows(capsys.readouterr().out)
    assert (row[1], row[3]) == ("source_only", "1")
    assert row[2] != whole[0][2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name a FILE of rows, or --methods and --sources"),
        (["--methods", "dacs"], "or --sources"),
        (["--methods", "dacs,", "--sources", "toycity"], "--methods takes names such as a,b"),
        (["s.yaml", "--preset", "quick", "--grid", "a=1"], "--preset, --grid: a FILE says it itself"),
        (["s.yaml", "--methods", "dacs"], "Unknown method of the sweep 'dacs'"),
        (["s.yaml", "--seeds", "0,x"], "Seeds are numbers"),
        (["none.yaml"], "Cannot read none.yaml"),
        (["s.yaml", "--gpus", "63"], "--gpus 63: no such GPU"),
        (["s.yaml", "--slurm", "partition=gpu"], "--slurm names resources of --executor slurm"),
        (["s.yaml", "--gpus", "0", "--executor", "slurm"], "--slurm gpus_per_node=1"),
        (["s.yaml", "--executor", "local", "--slurm", "gpus"], "--slurm takes key=value, not 'gpus'"),
        (["--methods", "dacs", "--sources", "toycity", "--grid", "ema"], "--grid takes key=value"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(place: Path, arguments: list[str], said: str) -> None:
    (place / "s.yaml").write_text(FILE)
    with pytest.raises(UsageError) as error:
        sweep(*arguments)
    assert said in str(error.value)
    assert not (place / "runs" / "fake-source-fake-target").exists()


def test_gpus_and_what_contradicts_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "s.yaml").write_text(FILE)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UsageError, match="--jobs 3 with 2 --gpus"):
        sweep("s.yaml", "--gpus", "0,1", "--jobs", "3")
    with pytest.raises(UsageError, match=r"engine\.device is set for oracle, source_only"):
        sweep("s.yaml", "--gpus", "0,1", "--set", "engine.device=cpu")


def test_a_run_that_fails_stops_no_other(place: Path, unbuilt: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The source's folder is away at first: the oracle does without it."""
    arguments = [*asked("source_only", "oracle"), "--jobs", "2", "--out", "board"]
    shutil.move(place / "data" / "fake-source", place / "away")
    with pytest.raises(UserError, match="1 of 2 runs failed") as error:
        sweep(*arguments)
    said = capsys.readouterr().out
    assert "missing fake-source train cannot be opened" in said
    assert [row[4] for row in plan_rows(said)[2:]] == ["running", "running", "failed", "done"]
    (log,) = place.glob("runs/*/source_only-*.log")
    assert f"log {log.relative_to(place)}" in str(error.value)
    assert "fake-source" in log.read_text()
    assert "| oracle" in (place / "board" / "fake-source-fake-target.md").read_text()
    shutil.move(place / "away", place / "data" / "fake-source")
    sweep(*arguments, "--dry-run")
    said = capsys.readouterr().out
    assert "missing" not in said
    assert [row[4:6] for row in plan_rows(said)] == [["1", "new"], ["1", "done"]]


def records(place: Path) -> list[Record]:
    """In the order in which they were made."""
    paths = sorted(place.glob("runs/*/*/record.json"), key=lambda path: path.stat().st_mtime_ns)
    return [read_record(path.parent) for path in paths]


def assert_they_are_a_family(place: Path) -> None:
    """The weights of another method's run, then the stages of one's own, in that order."""
    root, first, second = records(place)
    for child, parent in ((first, root), (second, first)):
        assert child.flags.ancestor is not None
        assert (child.flags.ancestor.run, child.flags.ancestor.outcome) == (parent.run, parent.outcome_digest)
    assert root.flags.ancestor is None
    assert (first.method, first.flags.ancestor.stages) == ("generations", ())
    assert first.network.reports[0].source.startswith("student (student) of source_only-quick-fake-")
    assert second.flags.ancestor.stages == ("warm", "label-1", "adapt-1")


def test_rows_begin_from_each_other(place: Path, unbuilt: None, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "s.yaml").write_text(FAMILY)
    arguments = ["s.yaml", "--methods", "generations", "--plugin", str(GENERATIONS), "--jobs", "2"]
    sweep(*arguments)
    said = capsys.readouterr().out
    assert "not chosen, but begun from: source_only" in said
    assert [row[-1] for row in plan_rows(said)[:2]] == ["first", "source_only"]
    assert_they_are_a_family(place)
    sweep(*arguments)
    assert "3 runs, 0 to do" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_family_goes_on_after_a_kill(place: Path, unbuilt: None, number: int) -> None:
    (place / "s.yaml").write_text(FAMILY)
    arguments = ["s.yaml", "--plugin", str(GENERATIONS)]
    command = [sys.executable, "-m", "udabench", "sweep", *arguments, "--plugin", str(FAKES), "--yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(lambda: bool(records(place)) or process.poll() is not None)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert 1 <= len(records(place)) < 3
    sweep(*arguments)
    assert_they_are_a_family(place)


def test_the_small_benchmark_is_what_it_says(place: Path) -> None:
    """Names that are known, and the rule of its header: warm-up 1/15, EMA at most 1 - 4.5 / iterations."""
    registry = load_registry()
    points = list(read_sweep(SMALL).points())
    known = {entry.name for entry in registry.methods}
    assert {point.request.method for point in points} <= known
    jobs = make_jobs(registry, points, place, ())
    assert len(jobs) == 12 * 3 + 12
    for job in jobs:
        values = {key.rpartition(".")[2]: value for key, value, _ in job.plan.config.leaves()}
        assert values["iterations"] == (450 if job.plan.task.name == "toycity-toycity-real" else 250)
        # FDA's steps are those of all its trainings.
        steps = values["iterations"] // (1 + values.get("rounds", 0))
        assert values["warmup"] == round(steps / 15), job.title
        assert values.get("ema", 0) <= 1 - 4.5 / values["iterations"] + 1e-9, job.title


@pytest.mark.parametrize(("name", "runs"), [("small-offline.yaml", 17 * 3 + 4 + 7), ("sam-readings.yaml", 14)])
def test_the_small_offline_benchmark_is_what_it_says(place: Path, name: str, runs: int) -> None:
    """Every training has as many steps, 300 or 250; warm-up and averages follow the rule of small.yaml."""
    jobs = make_jobs(load_registry(), list(read_sweep(LEADERBOARDS / name).points()), place, ())
    assert len(jobs) == len({job.plan.folder_name for job in jobs}) == runs
    for job in {job.plan.row_name: job for job in jobs}.values():
        steps = 300 if job.plan.task.name == "toycity-toycity-real" else 250
        steps *= 2 if job.row.endswith("twice") else 1
        stages = [stage for stage in bare_method(job.plan).stages() if stage.iterations]
        # The rounds of cbst share one.
        rounds = 3 if job.plan.config.method == "cbst" else 1
        assert {round(stage.iterations * rounds / steps, 2) for stage in stages} <= {0.99, 1.0, 1.01}, job.title
        values = {key.rpartition(".")[2]: value for key, value, _ in job.plan.config.leaves()}
        assert values["warmup"] == round(steps / rounds / 15), job.title
        most = 1 - 4.5 / steps + 1e-9
        assert values.get("ema", 0) <= most, job.title
        assert values.get("momentum", 0) <= most, job.title
        assert values.get("prototype_rate", 1) >= 1 - most, job.title


class Killer:
    """Starts the same sweep again and again, in a process of its own."""

    def __init__(self, place: Path, runs: str) -> None:
        self.runs = place / runs
        self.command = [
            sys.executable, "-m", "udabench", "sweep", *asked("source_only", "dacs", iterations=120),
            "--jobs", "2", "--runs", str(self.runs), "--plugin", str(FAKES),
        ]  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def finish(self) -> None:
        process = self.start()
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said.decode()

    def end(self, number: int, steps: int) -> None:
        """Send a signal when so many more steps have been made; then nothing may be left alive."""
        before, process = self.steps(), self.start()
        wait_until(lambda: self.steps() >= before + steps or process.poll() is not None)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == (1 if number != signal.SIGKILL else -number)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert alive == []

    def steps(self) -> int:
        """Completed ones of all runs."""
        return sum(entries[-1]["iteration"] for f in self.folders() if (entries := read_metrics(f.metrics)))

    def folders(self) -> Iterator[RunFolder]:
        return (RunFolder(path.parent) for path in sorted(self.runs.glob("*/*/run.json")))

    def outcome(self) -> dict[str, tuple[str, dict[str, bytes]]]:
        found = {}
        for folder in self.folders():
            weights = load_file(folder.checkpoints / "120" / "model.safetensors")
            digest = read_record(folder.path).outcome_digest
            found[folder.path.name] = (digest, {key: value.tobytes() for key, value in weights.items()})
        return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an orphan goes on, and is waited for")
def test_a_kill_loses_nothing(place: Path) -> None:
    """Killed and stopped at random moments: no completed step is made again, and the end is that of a whole sweep."""
    whole, killed = Killer(place, "whole"), Killer(place, "killed")
    whole.finish()
    draw = random.Random(0)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        killed.end(number, draw.randint(5, 40))
        for folder in killed.folders():
            logged = [entry["iteration"] for entry in read_metrics(folder.metrics)]
            assert folder.read_run().get("iteration", 0) == (logged[-1] if logged else 0)
    killed.finish()
    assert killed.outcome() == whole.outcome()
    # Each end met at least one run in its steps, which one is chance.
    assert sum(read_record(folder.path).flags.resumed for folder in killed.folders()) >= 3
    assert len(list((killed.runs / "leaderboards" / "results" / "fake-source-fake-target").glob("*.json"))) == 2
