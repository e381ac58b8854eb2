"""What is started, skipped, taken up and given up, with runs that only write what a run would."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from udabench.engine.signals import Stopped
from udabench.sweep import conduct
from udabench.sweep.conduct import Phase, Sweep
from udabench.sweep.executor import Handle
from udabench.sweep.job import Job

MakeJobs = Callable[..., list[Job]]


class FakeHandle:
    def __init__(self, end: Callable[[], None], polls: int) -> None:
        self.end = end
        self.polls = polls
        self.stopped = False

    def ended(self) -> bool:
        self.polls -= 1
        if self.polls == 0:
            self.end()
        return self.polls <= 0 or self.stopped

    def stop(self) -> None:
        self.stopped = True


class FakeExecutor:
    """Two slots; each run ends at the third poll, those named in ``failing`` without a record."""

    detached = False

    def __init__(self, failing: Sequence[str] = (), earlier: Mapping[Job, Handle] | None = None) -> None:
        self.failing = failing
        self.earlier = earlier or {}
        self.started: list[Job] = []
        self.handles: list[FakeHandle] = []
        self.most = 0

    def room(self) -> int:
        return 2 - sum(handle.polls > 0 for handle in self.handles)

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        self.started += jobs
        new = [FakeHandle(self.end_of(job), 3) for job in jobs]
        self.handles += new
        self.most = max(self.most, sum(handle.polls > 0 for handle in self.handles))
        return new

    def running(self, jobs: Sequence[Job]) -> Mapping[Job, Handle]:
        return {job: handle for job, handle in self.earlier.items() if job in jobs}

    def end_of(self, job: Job) -> Callable[[], None]:
        return lambda: None if job.row in self.failing else finish(job)


def finish(job: Job) -> None:
    job.folder.path.mkdir(parents=True, exist_ok=True)
    job.folder.record.write_text("{}")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "POLL_SECONDS", 0.001)


def test_what_is_done_is_skipped_and_a_failure_stops_no_other(make: MakeJobs) -> None:
    done, bad, one, two = make("oracle", "dacs", "fda", "source_only")
    finish(done)
    executor, seen = FakeExecutor(failing=["dacs"]), []
    phases = Sweep([done, bad, one, two], executor, lambda now: seen.append(dict(now))).run()
    assert phases == {done: Phase.DONE, bad: Phase.FAILED, one: Phase.DONE, two: Phase.DONE}
    assert executor.started == [bad, one, two]
    assert executor.most == 2
    assert seen[0] == {done: Phase.DONE, bad: Phase.WAITING, one: Phase.WAITING, two: Phase.WAITING}
    assert seen[-1] == phases


def test_a_run_that_another_process_has_is_waited_for_and_taken_up(
    make: MakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is finished there, the second is left broken."""
    first, second = make("oracle", "dacs")
    polls: dict[Path, int] = {}

    def owner(folder: conduct.Job) -> str | None:
        path = folder.path  # type: ignore[attr-defined]
        polls[path] = polls.get(path, 0) + 1
        if polls[path] == 3 and path == first.order.folder:
            finish(first)
        return "1" if polls[path] < 4 else None

    monkeypatch.setattr("udabench.engine.folder.RunFolder.owner", owner)
    executor, seen = FakeExecutor(), set()
    Sweep([first, second], executor, lambda now: seen.update(now.values())).run()
    assert executor.started == [second]
    assert Phase.ELSEWHERE in seen


def test_jobs_of_an_earlier_sweep_are_not_submitted_again(make: MakeJobs) -> None:
    queued, new = make("oracle", "dacs")
    executor = FakeExecutor(earlier={queued: FakeHandle(lambda: finish(queued), 2)})
    assert set(Sweep([queued, new], executor).run().values()) == {Phase.DONE}
    assert executor.started == [new]


FAMILY = [
    {"method": "fda", "init_from": "dacs"},
    {"method": "dacs", "init_from": "oracle"},
    {"method": "oracle"},
    {"method": "source_only"},
    {"method": "min_entropy"},
]


def test_a_run_waits_for_the_one_that_it_begins_from(make: MakeJobs) -> None:
    """The others start in the order of the file meanwhile."""
    executor = FakeExecutor()
    assert set(Sweep(make(rows=FAMILY), executor).run().values()) == {Phase.DONE}
    assert [job.row for job in executor.started] == ["oracle", "source_only", "dacs", "min_entropy", "fda"]


def test_a_failure_is_that_of_all_who_begin_from_it(make: MakeJobs) -> None:
    jobs, executor = make(rows=FAMILY), FakeExecutor(failing=["oracle"])
    phases = Sweep(jobs, executor).run()
    assert [phases[job] for job in jobs] == [Phase.FAILED, Phase.FAILED, Phase.FAILED, Phase.DONE, Phase.DONE]
    assert [job.row for job in executor.started] == ["oracle", "source_only", "min_entropy"]
    assert jobs[0].order.last_words() == (
        "error: not started: it begins from fake-source-fake-target dacs seed 0, which failed."
    )
    again = FakeExecutor()
    assert set(Sweep(jobs, again).run().values()) == {Phase.DONE}
    assert [job.row for job in again.started] == ["oracle", "dacs", "fda"]


def test_what_has_begun_needs_its_ancestor_no_more(make: MakeJobs) -> None:
    fda, dacs, oracle = jobs = make(rows=FAMILY[:3])
    dacs.folder.path.mkdir(parents=True)
    dacs.folder.update_run(status="stopped")
    executor = FakeExecutor(failing=["oracle"])
    assert Sweep(jobs, executor).run() == {fda: Phase.DONE, dacs: Phase.DONE, oracle: Phase.FAILED}
    assert executor.started == [dacs, oracle, fda]


def test_a_sweep_that_ended_between_the_two_goes_on_with_the_second(make: MakeJobs) -> None:
    def watch(phases: Mapping[Job, Phase]) -> None:
        if any(phase == Phase.DONE for phase in phases.values()):
            os.kill(os.getpid(), signal.SIGTERM)

    jobs = make(rows=FAMILY[:3])
    first, second = FakeExecutor(), FakeExecutor()
    with pytest.raises(Stopped, match="1 of 3 runs are done"):
        Sweep(jobs, first, watch).run()
    assert set(Sweep(make(rows=FAMILY[:3]), second).run().values()) == {Phase.DONE}
    assert ([job.row for job in first.started], [job.row for job in second.started]) == (["oracle"], ["dacs", "fda"])


@pytest.fixture
def interrupted() -> Iterator[Callable[[Mapping[Job, Phase]], None]]:
    assert threading.current_thread() is threading.main_thread()

    def watch(phases: Mapping[Job, Phase]) -> None:
        if Phase.RUNNING in phases.values():
            os.kill(os.getpid(), signal.SIGTERM)

    yield watch
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_reaches_the_runs(make: MakeJobs, interrupted: conduct.Watch) -> None:
    jobs, executor = make("oracle", "dacs", "fda"), FakeExecutor()
    with pytest.raises(Stopped, match=r"Stopped by SIGTERM: 0 of 3 runs are done, those that ran have saved"):
        Sweep(jobs, executor, interrupted).run()
    assert [handle.stopped for handle in executor.handles] == [True, True]


def test_a_clusters_jobs_outlive_the_sweep(make: MakeJobs, interrupted: conduct.Watch) -> None:
    jobs, executor = make("oracle"), FakeExecutor()
    executor.detached = True
    with pytest.raises(Stopped, match="its jobs go on"):
        Sweep(jobs, executor, interrupted).run()
    assert [handle.stopped for handle in executor.handles] == [False]


def test_an_error_of_ours_leaves_no_run_behind(make: MakeJobs) -> None:
    def broken(phases: Mapping[Job, Phase]) -> None:
        if Phase.RUNNING in phases.values():
            raise OSError("the terminal has gone")

    executor = FakeExecutor()
    with pytest.raises(OSError, match="terminal"):
        Sweep(make("oracle"), executor, broken).run()
    assert [handle.stopped for handle in executor.handles] == [True]
