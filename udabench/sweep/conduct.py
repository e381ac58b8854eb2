"""The sweep itself: starts what is to be done, watches it, and knows at the end what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from udabench.engine.signals import Stopped, StopRequest, listening
from udabench.sweep.executor import Executor, Handle
from udabench.sweep.job import Job, State

POLL_SECONDS = 0.3


class Phase(StrEnum):
    """Of a run within the sweep."""

    WAITING = "waiting"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"
    """Another process works on it: a second sweep, or what a killed one has left behind."""
    DONE = "done"
    FAILED = "failed"


Watch = Callable[[Mapping[Job, Phase]], None]
"""Told the phase of every run, several times a second."""

_BEGIN = {
    State.DONE: Phase.DONE,
    State.BUSY: Phase.ELSEWHERE,
    State.NEW: Phase.WAITING,
    State.BROKEN: Phase.WAITING,
}


class Sweep:
    """Carries runs out: finished ones are skipped, broken ones resumed, and one that fails stops no other.

    A run that begins from another one waits until that is done, and fails with it. All that is known is in the run
    folders: the sweep may be killed at any moment and made again.
    """

    def __init__(self, jobs: Sequence[Job], executor: Executor, watch: Watch = lambda phases: None) -> None:
        self.phases: dict[Job, Phase] = {job: _BEGIN[job.state()] for job in jobs}
        self._executor = executor
        self._watch = watch
        self._handles: dict[Job, Handle] = {}

    def run(self) -> Mapping[Job, Phase]:
        """Until every run is done or has failed.

        Raises:
            Stopped: after SIGINT or SIGTERM; the runs have saved.
        """
        with listening() as stop:
            try:
                self._adopt()
                self._watch(self.phases)
                while self._open():
                    self._start()
                    self._look()
                    self._watch(self.phases)
                    if stop:
                        raise self._stopped(stop)
                    time.sleep(POLL_SECONDS if self._open() else 0)
            except BaseException:
                self._end()
                raise
        return self.phases

    def _open(self) -> bool:
        return bool(set(self.phases.values()) - {Phase.DONE, Phase.FAILED})

    def _in(self, phase: Phase) -> list[Job]:
        return [job for job, now in self.phases.items() if now == phase]

    def _adopt(self) -> None:
        self._handles = dict(self._executor.running([job for job, now in self.phases.items() if now != Phase.DONE]))
        self.phases.update(dict.fromkeys(self._handles, Phase.RUNNING))

    def _start(self) -> None:
        self._give_up()
        jobs = [job for job in self._in(Phase.WAITING) if self._awaited(job) is None][: self._executor.room()]
        if jobs:
            self._handles.update(zip(jobs, self._executor.start(jobs), strict=True))
            self.phases.update(dict.fromkeys(jobs, Phase.RUNNING))

    def _awaited(self, job: Job) -> Job | None:
        """The run that must be done before this one begins. One that has begun holds all that it took over."""
        elder = job.ancestor
        if elder is None or self.phases[elder] == Phase.DONE or job.folder.run_json.exists():
            return None
        return elder

    def _give_up(self) -> None:
        """Runs whose ancestors have failed."""
        for job in self._in(Phase.WAITING):
            elder = self._awaited(job)
            if elder is not None and self.phases[elder] == Phase.FAILED:
                job.order.note(f"error: not started: it begins from {elder.title}, which failed.")
                self.phases[job] = Phase.FAILED

    def _look(self) -> None:
        for job, handle in list(self._handles.items()):
            if handle.ended():
                del self._handles[job]
                begin = _BEGIN[job.state()]
                self.phases[job] = Phase.FAILED if begin == Phase.WAITING else begin
        for job in self._in(Phase.ELSEWHERE):
            self.phases[job] = _BEGIN[job.state()]

    def _stopped(self, stop: StopRequest) -> Stopped:
        done = len(self._in(Phase.DONE))
        left = "its jobs go on" if self._executor.detached else "those that ran have saved"
        return Stopped(
            f"Stopped by {stop.name}: {done} of {len(self.phases)} runs are done, {left}. Go on with the same command."
        )

    def _end(self) -> None:
        """Nothing that we have started outlives us, unless it is meant to."""
        if self._executor.detached:
            return
        for handle in self._handles.values():
            handle.stop()
        # What a run is made of may outlive the process that was asked.
        while any(not handle.ended() or job.folder.owner() for job, handle in self._handles.items()):
            time.sleep(POLL_SECONDS)
