"""Jobs of a cluster: a stand-in for slurm's commands takes them; submitit's local executor runs them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from udabench.engine.files import read_json
from udabench.errors import UsageError
from udabench.results import read_record
from udabench.sweep.cluster import Cluster, Work
from udabench.sweep.conduct import Phase, Sweep
from udabench.sweep.job import Job, State

MakeJobs = Callable[..., list[Job]]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in whose ``submitted`` the stand-ins keep what sbatch was given; sacct prints ``states``."""
    folder = tmp_path / "queue"
    folder.mkdir()
    scripts = {
        "srun": "exit 1",
        "sbatch": f"cat $1 >> {folder}/submitted; echo Submitted batch job 77",
        "sacct": f"cat {folder}/states",
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "states").write_text("JobID|State|NodeList\n")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_runs_are_one_array_with_its_resources(make: MakeJobs, queue: Path, tmp_path: Path) -> None:
    jobs = make("oracle", "dacs", seeds=[0, 1])
    cluster = Cluster("slurm", tmp_path / "slurm", 3, {"partition": "gpu", "gpus_per_node": 1, "mem_gb": 16})
    assert cluster.room() >= len(jobs)
    handles = cluster.start(jobs)
    said = (queue / "submitted").read_text()
    for flag in (
        "--array=0-3%3",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--mem=16GB",
        "--time=240",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {flag}\n" in said
    assert len(handles) == 4
    stored = read_json(tmp_path / "slurm" / "jobs.json")
    assert stored == {job.plan.folder_name: f"77_{index}" for index, job in enumerate(jobs)}
    assert isinstance(handles[0]._job.submission().function, Work)  # type: ignore[attr-defined]
    assert handles[2]._job.submission().function.order == jobs[2].order  # type: ignore[attr-defined]


def test_what_waits_in_the_queue_is_not_submitted_again(make: MakeJobs, queue: Path, tmp_path: Path) -> None:
    jobs = make("oracle", "dacs", "fda", seeds=[0])
    Cluster("slurm", tmp_path / "slurm", 3, {}).start(jobs[:2])
    (queue / "states").write_text("JobID|State|NodeList\n77_0|PENDING|\n77_1|CANCELLED|\n")
    again = Cluster("slurm", tmp_path / "slurm", 3, {}).running(jobs)
    assert list(again) == [jobs[0]]
    assert not again[jobs[0]].ended()


def test_what_is_unknown_is_named(queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--slurm: .*'partitoin'"):
        Cluster("slurm", tmp_path, 1, {"partitoin": "gpu"})
    with pytest.raises(UsageError, match=r"--slurm: .*mem_gb"):
        Cluster("slurm", tmp_path, 1, {"mem_gb": "much"})
    (queue / "srun").unlink()
    with pytest.raises(UsageError, match="finds no srun"):
        Cluster("slurm", tmp_path, 1, {})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'udabench\[slurm\]'"):
        Cluster("local", tmp_path, 1, {})


LONG = {"iterations": 300, "data.workers": 0, "engine.log_every": 1, "engine.checkpoint_every": 100_000}


@pytest.mark.slow
def test_submitits_own_processes_carry_a_sweep_out(make: MakeJobs, tmp_path: Path) -> None:
    """Two runs side by side; one is preempted in the middle: it saves, is queued again, and resumes there."""
    jobs = make("oracle", "source_only", set=LONG)
    cluster, seen = Cluster("local", tmp_path / "local", 2, {}), []

    def preempt(phases: object) -> None:
        folder = jobs[0].folder
        if not seen and folder.metrics.is_file() and len(folder.metrics.read_text().splitlines()) > 5:
            seen.append(folder.path)
            (task,) = psutil.Process(int(cluster._handles[0]._job.job_id)).children()
            task.send_signal(signal.SIGUSR2)

    phases = Sweep(jobs, cluster, preempt).run()
    assert list(phases.values()) == [Phase.DONE, Phase.DONE]
    assert seen
    resumed = [read_record(job.order.folder).flags.resumed for job in jobs]
    assert resumed == [1, 0]
    said = jobs[0].order.log.read_text()
    assert [line.split()[1:3] for line in said.splitlines() if line.startswith("$ ")][1] == ["udabench", "resume"]
    assert "Going on from the checkpoint of iteration" in said


@pytest.mark.slow
def test_a_run_that_fails_there_fails_here(make: MakeJobs, tmp_path: Path) -> None:
    (job,) = make("oracle", set={"engine.device": "cuda:63"})
    began = time.monotonic()
    assert list(Sweep([job], Cluster("local", tmp_path / "local", 1, {})).run().values()) == [Phase.FAILED]
    assert job.state() == State.NEW
    assert "cuda:63" in job.order.log.read_text()
    assert time.monotonic() - began < 300
