"""The demonstration: three methods on the embedded data, side by side, then the table and a picture of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from udabench.errors import UserError
from udabench.run.plan import Plan

METHODS = ("t2sda", "source_only", "oracle")
"""The longest first: with two runs side by side it sets the pace."""
SOURCE, TARGET = "toycity", "toycity-real"


@dataclass
class Job:
    """One run in a process of its own, with one thread: two such fill two cores better than one with two threads."""

    plan: Plan
    runs: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return self.runs / self.plan.folder_name

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.runs / f"{self.plan.row_name}-s{self.plan.config.seed}.log"

    @property
    def title(self) -> str:
        return f"{self.plan.config.method} seed {self.plan.config.seed}"

    @property
    def finished(self) -> bool:
        return (self.folder / "record.json").is_file()

    def command(self) -> list[str]:
        base = [sys.executable, "-m", "udabench"]
        if (self.folder / "run.json").is_file():
            return [*base, "resume", str(self.folder)]
        config = self.plan.config
        overrides = [f"--set=data.store={config.data.store}"] if config.data.store else []
        return [
            *base, "run", "--method", config.method, "--source", config.source, "--target", config.target,
            "--seed", str(config.seed), "--iterations", str(config.iterations), "--runs", str(self.runs), *overrides,
        ]  # fmt: skip

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=subprocess.STDOUT, env=environment)

    def iteration(self) -> int:
        """The last iteration that the run has logged."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return 0
        lines = path.read_bytes().splitlines()
        try:
            return int(json.loads(lines[-1])["iteration"]) if lines else 0
        # The last line may be half written.
        except (ValueError, KeyError):
            return int(json.loads(lines[-2])["iteration"]) if len(lines) > 1 else 0

    def check(self) -> None:
        """Raises UserError with the end of the log when the process failed."""
        if self.process is not None and self.process.poll() not in (None, 0):
            said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
            raise UserError(f"{self.title} failed; the whole log is {self.log}:\n" + "\n".join(said))


def run_jobs(jobs: Sequence[Job], side_by_side: int, console: Console) -> None:
    """Run all jobs, some at a time, with progress. What was finished before is not run again."""
    waiting = [job for job in jobs if not job.finished]
    running: list[Job] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bars = {
            id(job): progress.add_task(job.title, total=job.plan.config.iterations, start=job.finished) for job in jobs
        }
        try:
            while waiting or running:
                while waiting and len(running) < side_by_side:
                    running.append(waiting.pop(0))
                    running[-1].start()
                    progress.start_task(bars[id(running[-1])])
                time.sleep(0.5)
                for job in running:
                    progress.update(bars[id(job)], completed=job.iteration())
                    job.check()
                running = [job for job in running if job.process is not None and job.process.poll() is None]
        finally:
            for job in running:
                if job.process is not None:
                    job.process.terminate()
                    job.process.wait()
        for job in jobs:
            progress.update(bars[id(job)], completed=job.plan.config.iterations)


def in_table_order(jobs: Sequence[Job]) -> Iterator[Job]:
    """Lower bound, method, upper bound."""
    order = ("source_only", "t2sda", "oracle")
    yield from sorted(jobs, key=lambda job: (order.index(job.plan.config.method), job.plan.config.seed))
