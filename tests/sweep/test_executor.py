"""Slots, GPUs, and a process' place in its slot."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from udabench.errors import UsageError
from udabench.sweep.executor import Processes, slots, visible_gpus
from udabench.sweep.order import Order


def test_processors_are_shared_out() -> None:
    assert slots(3, [], 8) == [{"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}] * 3
    assert {slot["OMP_NUM_THREADS"] for slot in slots(4, [], 2)} == {"1"}
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(2, ["5", "5"], 8)] == ["5", "5"]


def test_gpus_are_counted_as_torch_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus("2,0,0") == ["2", "0", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, GPU-ab ,4")
    assert visible_gpus("0,1") == ["7", "GPU-ab"]
    with pytest.raises(UsageError, match="--gpus 3, -1: no such GPU; torch finds 0 to 2"):
        visible_gpus("0,3,-1")
    with pytest.raises(UsageError, match="not 'all'"):
        visible_gpus("all")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UsageError, match="--gpus 0: no such GPU; torch finds none"):
        visible_gpus("0")


class Sleeper(Order):
    """Says what it is given and waits."""

    def start(self, environment):  # type: ignore[no-untyped-def]
        code = "import os, time; print(os.environ['SLOT'], flush=True); time.sleep(600)"
        with self.log.open("w") as out:
            return subprocess.Popen([sys.executable, "-c", code], stdout=out, env=dict(environment))


class FakeJob:
    def __init__(self, order: Order) -> None:
        self.order = order


def wait_until(condition, seconds: float = 20) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_slot_is_free_again_when_its_process_has_ended(tmp_path: Path) -> None:
    jobs = [FakeJob(Sleeper(tmp_path / name, ())) for name in "abc"]
    processes = Processes([{"SLOT": "one"}, {"SLOT": "two"}])
    first, second = processes.start(jobs[:2])  # type: ignore[arg-type]
    assert processes.room() == 0
    wait_until(lambda: jobs[1].order.last_words())
    second.stop()
    wait_until(second.ended)
    assert second.ended()
    assert (first.ended(), processes.room()) == (False, 1)
    (third,) = processes.start(jobs[2:])  # type: ignore[arg-type]
    wait_until(lambda: all(job.order.last_words() for job in jobs))
    assert [job.order.last_words() for job in jobs] == ["one", "two", "two"]
    for handle in (first, third):
        handle.stop()
        wait_until(handle.ended)


PARENT = """
import sys, time
from pathlib import Path
from udabench.sweep.order import Order
print(Order(Path(sys.argv[1]), ("methods", "--plugin", sys.argv[2])).start({}).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an orphan goes on")
def test_a_process_ends_with_its_sweep_however_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is a command that never ends by itself: one whose plugin sleeps as it is imported."""
    plugin = tmp_path / "sleeper.py"
    plugin.write_text("import pathlib, time\npathlib.Path(__file__).with_name('here').touch()\ntime.sleep(600)\n")
    command = [sys.executable, "-c", PARENT, str(tmp_path / "run"), str(plugin)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until((tmp_path / "here").exists)
        parent.kill()
        parent.wait()
    child.wait(20)
    assert not child.is_running()
