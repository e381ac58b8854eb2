"""How far a run is, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path

from udabench.results import read_record
from udabench.sweep.job import Job


class Progress:
    """Follows a run's ``metrics.jsonl`` as it grows.

    Attributes:
        iteration: completed steps, as far as they are logged.
        step_seconds: of a step, lately.
    """

    def __init__(self, job: Job) -> None:
        self.total = job.plan.config.iterations
        self.iteration = 0
        self.step_seconds: float | None = None
        self._job = job
        self._headline = job.plan.task.headline
        self._loss: float | None = None
        self._score: float | None = None
        self._read = 0

    def update(self) -> None:
        """Read what is new. A resumed run drops entries: then all is read again."""
        path: Path = self._job.folder.metrics
        if not path.is_file():
            return
        with path.open("rb") as file:
            if file.seek(0, 2) < self._read:
                self._read = 0
            file.seek(self._read)
            # The last line may be half written.
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            values, self.iteration = entry["values"], int(entry["iteration"])
        except (ValueError, KeyError, TypeError):
            return
        losses = [value for name, value in values.items() if name.startswith("loss/") and name.count("/") == 1]
        self._loss = sum(losses) if losses else self._loss
        self._score = values.get(f"eval/{self._headline}", self._score)
        self.step_seconds = values.get("time/step", self.step_seconds)

    @property
    def seconds_left(self) -> float | None:
        """Of the training."""
        return None if self.step_seconds is None else (self.total - self.iteration) * self.step_seconds

    def metric(self) -> str:
        """The result of a finished run; of another its last evaluation, else its loss."""
        if self._job.folder.record.is_file():
            return self._said(read_record(self._job.order.folder).headline.means[self._headline])
        if self._score is not None:
            return self._said(self._score)
        return "" if self._loss is None else f"loss {self._loss:.3g}"

    def _said(self, score: float) -> str:
        return f"{self._headline} {100 * score:.2f}"
