"""The run's log: metrics.jsonl, TensorBoard, log.txt, and what the terminal shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from udabench.engine.files import explain_full_disk
from udabench.engine.folder import RunFolder
from udabench.engine.metrics import Metrics
from udabench.engine.pictures import to_rgb
from udabench.labels import LabelSpace

PLAIN_SECONDS = 10.0
"""Least time between two lines of progress where there is no terminal."""


@dataclass(frozen=True)
class Pace:
    """What the progress line says beside the values.

    Attributes:
        speed: steps a second, lately.
        memory: bytes at the peak.
    """

    speed: float
    memory: int


class RunLog:
    """Open it with the number of completed steps; whatever was logged after them is dropped."""

    def __init__(self, folder: RunFolder, classes: LabelSpace, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._folder = folder
        self._classes = classes
        self._total = total
        self._metrics = Metrics(folder.metrics)
        self._text: TextIO | None = None
        self._board: SummaryWriter | None = None
        self._bar = _make_bar(self.console) if self.console.is_terminal else None
        self._said = 0.0

    def open(self, iteration: int) -> None:
        """Raises DiskFull."""
        with explain_full_disk(self._folder.path):
            self._folder.path.mkdir(parents=True, exist_ok=True)
            self._metrics.open(iteration)
            self._text = self._folder.log.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(self._folder.tensorboard), purge_step=iteration + 1)
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=iteration, now="")

    def close(self) -> None:
        """End the display and close everything. Quiet on a full disk: whoever wrote last has said so."""
        if self._bar is not None:
            self._bar.stop()
        for file in (self._metrics, self._text, self._board):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def say(self, text: str) -> None:
        """A line for people: terminal and log.txt."""
        self.console.print(text, markup=False)
        self._note(text)

    def warn(self, text: str) -> None:
        """A line that should be read."""
        self.console.print(f"warning: {text}", style="yellow", markup=False)
        self._note(f"warning: {text}")

    def advance(self, iteration: int) -> None:
        """A step is done. Moves the bar only."""
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration)

    def step(self, stage: str, iteration: int, values: Mapping[str, float], pace: Pace) -> None:
        """A logged step. Raises DiskFull."""
        self.values(stage, iteration, values)
        now = _summary(values, pace)
        line = f"{stage} {iteration}/{self._total}  {now}  ETA {_eta(self._total - iteration, pace.speed)}"
        self._note(line)
        if self._bar is not None:
            self._bar.update(self._task, description=stage, now=now)
        elif time.monotonic() - self._said >= PLAIN_SECONDS or iteration == self._total:
            self._said = time.monotonic()
            self.console.print(line, markup=False)

    def looking(self, stage: str, place: int, whole: int) -> None:
        """A pass is at an image of a list. For people at the terminal."""
        now = f"image {place}/{whole}"
        if self._bar is not None:
            self._bar.update(self._task, description=stage, now=now)
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self.console.print(f"{stage}: {now}", markup=False)

    def values(self, stage: str, iteration: int, values: Mapping[str, float]) -> None:
        """Values that are measured at an iteration: a logged step's, or an evaluation's. Raises DiskFull."""
        self._metrics.write(stage, iteration, values)
        assert self._board is not None
        with explain_full_disk(self._folder.tensorboard):
            for name, value in values.items():
                self._board.add_scalar(name, value, iteration)

    def panel(self, name: str, picture: Tensor, iteration: int) -> None:
        """A picture for TensorBoard; see :func:`udabench.engine.pictures.to_rgb`. Raises DiskFull."""
        assert self._board is not None
        with torch.no_grad(), explain_full_disk(self._folder.tensorboard):
            self._board.add_images(name, to_rgb(picture, self._classes), iteration)

    def sync(self) -> None:
        """Everything logged so far is on the disk. Raises DiskFull."""
        assert self._board is not None
        self._metrics.sync()
        with explain_full_disk(self._folder.tensorboard):
            self._board.flush()

    def _note(self, text: str) -> None:
        assert self._text is not None
        with explain_full_disk(self._folder.log):
            self._text.write(f"{datetime.now().isoformat(sep=' ', timespec='seconds')}  {text}\n")
            self._text.flush()


class SilentLog(RunLog):
    """The log of a rank that leaves the writing to rank 0."""

    def open(self, iteration: int) -> None:
        pass

    def close(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def advance(self, iteration: int) -> None:
        pass

    def step(self, stage: str, iteration: int, values: Mapping[str, float], pace: Pace) -> None:
        pass

    def looking(self, stage: str, place: int, whole: int) -> None:
        pass

    def values(self, stage: str, iteration: int, values: Mapping[str, float]) -> None:
        pass

    def panel(self, name: str, picture: Tensor, iteration: int) -> None:
        pass

    def sync(self) -> None:
        pass


def _make_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=120,
    )


def _summary(values: Mapping[str, float], pace: Pace) -> str:
    losses = [value for name, value in values.items() if name.startswith("loss/") and name.count("/") == 1]
    rates = [value for name, value in values.items() if name.startswith("lr/")]
    parts = [f"loss {sum(losses):.4g}", f"lr {rates[0]:.3g}" if rates else "", f"{pace.speed:.3g} it/s"]
    return "  ".join([part for part in parts if part] + [f"{pace.memory / 2**30:.2f} GiB"])


def _eta(steps: int, speed: float) -> str:
    if speed <= 0:
        return "?"
    seconds = int(steps / speed)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
