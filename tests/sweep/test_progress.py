"""Reading a run's metrics while they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from udabench.plugins import import_file
from udabench.results import write_record
from udabench.sweep.job import Job
from udabench.sweep.progress import Progress

MakeJobs = Callable[..., list[Job]]
made = import_file(Path(__file__).parents[1] / "results" / "experiments.py")


def line(iteration: int, **values: float) -> str:
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return json.dumps({"stage": "train", "iteration": iteration, "values": named}) + "\n"


@pytest.fixture
def job(make: MakeJobs) -> Job:
    (job,) = make("dacs", set={"iterations": 100})
    job.folder.path.mkdir(parents=True)
    return job


def write(job: Job, text: str) -> None:
    with job.folder.metrics.open("a") as file:
        file.write(text)


def test_a_growing_file_is_followed(job: Job) -> None:
    progress = Progress(job)
    progress.update()
    assert (progress.iteration, progress.seconds_left, progress.metric()) == (0, None, "")
    whole = line(20, loss__source=1.5, loss__target=0.5, loss__source__part=9, time__step=0.25)
    write(job, line(10, loss__source=3, time__step=2) + whole[:-9])
    progress.update()
    assert (progress.iteration, progress.seconds_left) == (10, 180)
    write(job, whole[-9:])
    progress.update()
    assert (progress.iteration, progress.seconds_left, progress.metric()) == (20, 20, "loss 2")
    write(job, line(20, eval__mIoU19=0.4567, eval__tail=0.1))
    progress.update()
    progress.update()
    assert (progress.seconds_left, progress.metric()) == (20, "mIoU19 45.67")


def test_a_resumed_run_goes_back(job: Job) -> None:
    progress = Progress(job)
    write(job, line(10, loss__x=1) + line(20, loss__x=2))
    progress.update()
    job.folder.metrics.write_text(line(10, loss__x=1))
    progress.update()
    assert (progress.iteration, progress.metric()) == (10, "loss 1")
    write(job, line(20, loss__x=4))
    progress.update()
    assert (progress.iteration, progress.metric()) == (20, "loss 4")


def test_the_record_has_the_last_word(job: Job) -> None:
    dream = replace(job, plan=replace(job.plan, task=made.TASK))
    write(job, line(20, eval__mIoU3=0.3))
    progress = Progress(dream)
    progress.update()
    assert progress.metric() == "mIoU3 30.00"
    write_record(job.order.folder, *made.experiment(percent=60))
    assert progress.metric() == "mIoU3 60.00"
