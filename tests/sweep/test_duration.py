"""How long it takes, worked out by hand; what cannot be built is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from udabench.errors import UsageError
from udabench.plugins import import_file
from udabench.results import write_record
from udabench.sweep import duration
from udabench.sweep.duration import Finding, durations, key_of, left, makespan
from udabench.sweep.job import Job, State
from udabench.testing import FAKES

MakeJobs = Callable[..., list[Job]]
made = import_file(Path(__file__).parents[1] / "results" / "experiments.py")


def test_slots_are_filled_as_they_become_free() -> None:
    assert makespan([], 2) == 0
    assert makespan([3, 4, 5], 1) == 12
    # The third starts at 1 and ends at 6, the fourth starts at 4.
    assert makespan([4, 1, 5, 3], 2) == 7
    assert makespan([4, 1, 5, 3], 9) == 5


def test_a_run_starts_when_that_which_it_begins_from_has_ended() -> None:
    assert makespan([1, 2, 3], 9, {1: 0, 2: 1}) == 6
    # The first waits for the second; the third takes the other slot meanwhile.
    assert makespan([2, 4, 5], 2, {0: 1}) == 6
    assert makespan([2, 4, 5], 1, {0: 1}) == 11


def test_a_broken_run_has_less_to_do(make: MakeJobs) -> None:
    (job,) = make("dacs")
    assert left(job, 60) == 60
    job.folder.path.mkdir(parents=True)
    job.folder.update_run(iteration=3)
    assert left(job, 60) == 15


def test_finished_runs_tell_the_time_of_their_row_and_nothing_is_built(
    make: MakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make("dacs", seeds=[0, 1, 2])
    for job, wall in zip(jobs, (100.0, 300.0), strict=False):
        write_record(job.order.folder, *made.experiment(wall=wall))
    monkeypatch.setattr(duration, "_built", None)
    states = dict(zip(jobs, (State.DONE, State.DONE, State.NEW), strict=True))
    assert durations(jobs, states, 0.5, ()) == {key_of(jobs[0]): 200}


def test_an_estimate_is_shared_out(make: MakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = make("dacs", "oracle", seeds=[0, 1])
    asked = []
    findings = [Finding(seconds=10.0), Finding()]
    monkeypatch.setattr(duration, "_built", lambda questions, plugins: asked.extend(questions) or findings)
    assert durations(jobs, dict.fromkeys(jobs, State.NEW), 0.5, (), "cpu") == {key_of(jobs[0]): 20}
    assert [(question.request.method, question.request.flags["engine.device"]) for question in asked] == [
        ("dacs", "cpu"),
        ("oracle", "cpu"),
    ]


def test_what_cannot_be_built_is_said_of_all_rows(make: MakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: the other one is started in the tests of the command."""
    monkeypatch.setattr(duration, "_built", duration.build_all)
    rows = [
        {"method": "oracle", "network": "fke"},
        {"method": "source_only", "network": "fke"},
        {"method": "dacs", "set": {"network.options": {"widht": 3}}},
        {"method": "dacs", "label": "right"},
    ]
    jobs = make(rows=rows)
    with pytest.raises(UsageError) as error:
        durations(jobs, dict.fromkeys(jobs, State.NEW), 1, (FAKES,))
    first, second = str(error.value).splitlines()
    assert first.startswith("oracle, source_only: Unknown network 'fke'.")
    assert second.startswith("dacs: Unknown option of network fake 'widht'.")
    known = durations(jobs[-1:], {jobs[-1]: State.NEW}, 1, (FAKES,))
    assert known[key_of(jobs[-1])] > 0
