"""Runs as jobs of a cluster, by submitit, in arrays; a job that is preempted saves, is queued again and resumes."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from udabench.engine.files import read_json, write_json
from udabench.errors import UsageError, UserError
from udabench.sweep.executor import Handle
from udabench.sweep.job import Job
from udabench.sweep.order import Order

if TYPE_CHECKING:
    import submitit

REQUEUES = 1000
"""A job that its time limit ends is queued again so often: each time it goes on where it was."""
MINUTES = {"slurm": 240, "local": 7 * 24 * 60}
"""Time limit of a job where none is given."""
SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
"""submitit's names of resources; others are those of sbatch."""


@dataclass
class Work:
    """What a job does. Its run is a process of its own, so that it can save when the job must go."""

    order: Order
    pid: int = field(default=0, init=False)

    def __call__(self) -> None:
        """Raises UserError when the run fails: the queue shows it too."""
        process = self.order.start({})
        self.pid = process.pid
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code:
            raise UserError(f"The run failed with exit code {code}; its log is {self.order.log}.")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called in the job when its time is up: the run saves, and the next job takes it up.

        It interrupts the wait for the process, which therefore must not be asked: its lock is held.
        """
        from submitit.helpers import DelayedSubmission

        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGTERM)
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Work(self.order))


class Cluster:
    """Submits runs.

    Args:
        kind: ``slurm``, or ``local``: submitit's own processes, to try this way without a cluster.
        folder: of submitit's files; all nodes must see it, and the run folders.
        jobs: runs side by side.
        resources: for each job; names of submitit or of sbatch.

    Raises:
        UsageError: submitit or the cluster is not there, or a resource is unknown.
    """

    def __init__(self, kind: Literal["slurm", "local"], folder: Path, jobs: int, resources: Mapping[str, Any]) -> None:
        self.detached = kind == "slurm"
        self._kind = kind
        self._folder = folder.resolve()
        self._jobs = jobs
        self._handles: list[_Submitted] = []
        self._executor = _executor(kind, self._folder, jobs, resources)

    def room(self) -> int:
        """The queue keeps order on a cluster; here we do."""
        open_now = sum(not handle.ended() for handle in self._handles)
        return 10**6 if self._kind == "slurm" else self._jobs - open_now

    def start(self, jobs: Sequence[Job]) -> Sequence[Handle]:
        with self._executor.batch():
            submitted = [self._executor.submit(Work(job.order)) for job in jobs]
        handles = [_Submitted(job) for job in submitted]
        self._handles += handles
        if self.detached:
            new = {job.plan.folder_name: one.job_id for job, one in zip(jobs, submitted, strict=True)}
            write_json(self._ids, {**self._stored(), **new})
        return handles

    def running(self, jobs: Sequence[Job]) -> Mapping[Job, Handle]:
        """Those that wait in the queue have no folder yet: their numbers are kept beside submitit's files."""
        if not self.detached:
            return {}
        import submitit

        stored, found = self._stored(), {}
        for job in jobs:
            number = stored.get(job.plan.folder_name)
            if number is None:
                continue
            submitted: submitit.Job[None] = submitit.SlurmJob(self._folder, number)
            if not submitted.done(force_check=True):
                found[job] = _Submitted(submitted)
        return found

    @property
    def _ids(self) -> Path:
        return self._folder / "jobs.json"

    def _stored(self) -> dict[str, Any]:
        return read_json(self._ids) if self._ids.is_file() else {}


class _Submitted:
    def __init__(self, job: submitit.Job[None]) -> None:
        self._job = job

    def ended(self) -> bool:
        return bool(self._job.done())

    def stop(self) -> None:
        self._job.cancel(check=False)


def _executor(kind: str, folder: Path, jobs: int, resources: Mapping[str, Any]) -> submitit.AutoExecutor:
    try:
        import submitit
    except ImportError as error:
        raise UsageError(f"--executor {kind} needs submitit: pip install 'udabench[slurm]'.") from error
    usual = {"name": "udabench", "timeout_min": MINUTES[kind], "slurm_array_parallelism": jobs}
    asked = {key if key in SHARED else f"slurm_{key}": value for key, value in resources.items()}
    try:
        executor = submitit.AutoExecutor(folder, cluster=kind, **{f"{kind}_max_num_timeout": REQUEUES})
        executor.update_parameters(**{**usual, **asked})
    except RuntimeError as error:
        raise UsageError(
            "--executor slurm finds no srun. Start the sweep on a machine of the cluster, or leave --executor out."
        ) from error
    except (NameError, ValueError, TypeError, AssertionError) as error:
        said = str(error).partition("\n")[0]
        raise UsageError(f"--slurm: {said}") from error
    return executor
