"""A sweep's runs are those of ``udabench run``; what is wrong with any of them is said before one starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from udabench.cli import cli
from udabench.errors import UsageError
from udabench.run.plan import Plan
from udabench.sweep.file import Point
from udabench.sweep.job import Job, State, choose, make_jobs, missing
from udabench.sweep.order import Order
from udabench.testing import dataset, fake_registry

MakeJobs = Callable[..., list[Job]]
TRICKY = {
    "optim.lr": 1e-5,
    "network.options": {"width": 12},
    "data.source_size": None,
    "data.roots": {"fake-source": "/a b/c=d,'e'"},
    "evaluate.restrict_to_source": True,
    "evaluate.limit": 3,
}


@pytest.mark.parametrize(
    "row",
    [
        {"method": "t2sda", "set": {"alignment": "none", "settings.ema": 0.5}},
        {"method": "mic", "set": {"inner": "dacs", "ema": 0.75}},
        {"method": "dacs", "seeds": [0, 7], "grid": {"optim.lr": [1.0e-9, 0.5]}, "set": {"iterations": 3}},
        {"method": "source_only", "set": TRICKY},
    ],
)
def test_a_run_is_that_of_the_command_line(
    make: MakeJobs, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any]
) -> None:
    begun: list[tuple[Plan, Path]] = []
    monkeypatch.setattr("udabench.cli.run._run_all", lambda plans, runs: begun.extend((p, runs) for p in plans))
    jobs = make(rows=[row])
    for job in jobs:
        assert job.order.arguments() == job.order.fresh
        cli.main(list(job.order.fresh), standalone_mode=False)
    assert len(begun) == len(jobs) == len(row.get("seeds", [0])) * (2 if "grid" in row else 1)
    for (plan, runs), job in zip(begun, jobs, strict=True):
        assert plan.config.model_dump() == job.plan.config.model_dump()
        assert runs / plan.folder_name == job.order.folder


def test_the_problems_of_all_rows_are_named_at_once(make: MakeJobs) -> None:
    rows = [
        {"method": "t2sad"},
        {"method": "dacs", "preset": "qick"},
        {"method": "dacs", "sources": "fake-sorce", "label": "third"},
        {"method": "dacs", "set": {"emma": 1, "optim.lr": -1}, "label": "fourth"},
        {"method": "dacs", "grid": {"temprature": [1, 2]}},
        {"method": "oracle", "network": "fake2"},
        {"method": "oracle", "network": "fake2", "label": "again"},
    ]
    with pytest.raises(UsageError) as error:
        make(rows=rows)
    lines = str(error.value).splitlines()
    for said in (
        "t2sad: Unknown method 't2sad'. Did you mean 't2sda'?",
        "third: Unknown data set 'fake-sorce'.",
        "fourth: Unknown key 'emma'",
        "optim.lr = -1",
        "dacs temprature=1, dacs temprature=2: Unknown key 'temprature'",
    ):
        assert any(line.startswith(said) for line in lines), said
    assert "qick" in str(error.value)


def test_two_rows_of_one_folder_are_named(make: MakeJobs) -> None:
    rows = [{"method": "dacs"}, {"method": "dacs", "label": "other", "set": {"engine.log_every": 3}}]
    with pytest.raises(UsageError, match=r"'dacs' and 'other' are the same run: .*dacs-quick-fake-\w{8}-s0"):
        make(rows=rows)
    with pytest.raises(UsageError, match=r"'dacs data\.workers=0' and 'dacs data\.workers=1' are the same run"):
        make("dacs", grid={"data.workers": [0, 1]})


def test_a_sweep_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no runs"):
        make_jobs(fake_registry(), [], tmp_path, ())


def test_points_are_chosen_by_name(make: MakeJobs) -> None:
    jobs = make("dacs", "oracle", seeds=[0, 1, 2])
    points = [Point(job.row, job.request, (0, 1, 2)) for job in jobs if job.seed == 0]
    assert [(p.row, p.seeds) for p in choose(points, method=["oracle"], seed=[2, 0])] == [("oracle", (0, 2))]
    assert choose(points, method=None, source=["fake-source"]) == points
    for wanted in ({"method": ["t2sda"]}, {"source": ["gta5"]}, {"target": ["x"]}, {"seed": [5]}):
        with pytest.raises(UsageError, match=f"Unknown {next(iter(wanted))} of the sweep"):
            choose(points, **wanted)


def test_where_a_run_stands(make: MakeJobs) -> None:
    (job,) = make("dacs")
    assert job.state() == State.NEW
    folder = job.folder
    folder.path.mkdir(parents=True)
    assert job.state() == State.NEW
    folder.update_run(status="running", iteration=3)
    assert job.state() == State.BROKEN
    assert job.order.arguments() == ("resume", str(folder.path))
    code = (
        "import fcntl, os, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print(os.getpid(), file=file, flush=True); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder.path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert job.state() == State.BUSY
        assert folder.owner() == str(process.pid)
        process.kill()
    assert job.state() == State.BROKEN
    folder.record.write_text("{}")
    assert job.state() == State.DONE


def test_missing_data_are_named_with_their_rows(make: MakeJobs, tmp_path: Path) -> None:
    jobs = make("dacs", "oracle", seeds=[0, 1])
    assert list(missing(jobs)) == []
    for path in sorted((tmp_path / "data" / dataset.SOURCE).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "data" / dataset.SOURCE).rmdir()
    (said,) = missing(jobs)
    assert said.startswith("fake-source train cannot be opened, for dacs, oracle: ")


def test_the_last_words_of_a_log(tmp_path: Path) -> None:
    order = Order(tmp_path / "run", ())
    assert order.last_words() == ""
    order.log.write_text("first\nerror: so it is\n\n")
    assert (order.log.name, order.last_words()) == ("run.log", "error: so it is")
