"""What is shown of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from udabench.sweep import view
from udabench.sweep.conduct import Phase
from udabench.sweep.duration import key_of
from udabench.sweep.job import Job, State
from udabench.sweep.view import Board, carried_rows, failures, plan_table, plan_total, watching

MakeJobs = Callable[..., list[Job]]


def shown(what: object) -> str:
    out = StringIO()
    Console(file=out, width=160).print(what)
    return out.getvalue()


def test_the_plan_has_a_line_a_configuration(make: MakeJobs) -> None:
    jobs = make("dacs", "oracle", seeds=[0, 1, 2])
    states = dict(zip(jobs, [State.DONE, State.NEW, State.BROKEN, *[State.DONE] * 3], strict=True))
    text = shown(plan_table(jobs, states, {key_of(jobs[0]): 90.0, key_of(jobs[3]): 7.0}))
    lines = [line for line in text.splitlines() if "fake-source" in line]
    assert [line.split()[1] for line in lines] == ["dacs", "oracle"]
    assert "0,1,2   1 new, 1 broken, 1 done   about 90 s" in lines[0]
    assert lines[1].split()[-2:] == ["3", "done"]
    assert "?" in shown(plan_table(jobs, dict.fromkeys(jobs, State.NEW), {}))


def test_the_plan_says_what_begins_from_what_and_what_comes_along(make: MakeJobs) -> None:
    jobs = make(rows=[{"method": "oracle"}, {"method": "dacs", "label": "later", "init_from": "oracle"}])
    states = dict.fromkeys(jobs, State.NEW)
    lines = [line.split() for line in shown(plan_table(jobs, states, {})).splitlines() if line.strip()]
    assert lines[0][-2:] == ["begins", "from"]
    assert lines[3][-1] == "oracle"
    assert carried_rows(jobs) == ""
    assert carried_rows([replace(jobs[0], carried=True), jobs[1]]) == "not chosen, but begun from: oracle"
    seconds = {key_of(job): 60.0 for job in jobs}
    assert plan_total(jobs, states, seconds, 2).startswith("2 runs, 2 to do, 2 side by side: about 2.0 min")


def test_the_total_is_what_is_left(make: MakeJobs) -> None:
    """Three runs of 60 s, one of them half done, on two slots: 60 and 60, then 30."""
    jobs = make("dacs", seeds=[0, 1, 2, 3])
    states = dict(zip(jobs, [State.DONE, State.NEW, State.NEW, State.BROKEN], strict=True))
    jobs[3].folder.path.mkdir(parents=True)
    jobs[3].folder.update_run(iteration=2)
    seconds = {key_of(jobs[0]): 60.0}
    assert plan_total(jobs, states, seconds, 2).startswith("4 runs, 3 to do, 2 side by side: about 90 s, ")
    assert plan_total(jobs, states, seconds, 1).startswith("4 runs, 3 to do: about 2.5 min, ")
    assert plan_total(jobs, states, {}, 1) == "4 runs, 3 to do"
    more = [*jobs, *make("oracle")]
    states[more[-1]] = State.NEW
    assert "about 90 s and 1 of unknown length" in plan_total(more, states, seconds, 2)


def test_without_a_terminal_each_event_is_a_line(make: MakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make("dacs", "oracle")
    out = StringIO()
    clock = [0.0]
    monkeypatch.setattr(view.time, "monotonic", lambda: clock[0])
    with watching([one, two], Console(file=out, width=300)) as watch:
        watch({one: Phase.WAITING, two: Phase.WAITING})
        for seconds in (1, 2, view.LINE_SECONDS + 1):
            clock[0] = seconds
            watch({one: Phase.RUNNING, two: Phase.WAITING})
        watch({one: Phase.FAILED, two: Phase.RUNNING})
    said = [line.split() for line in out.getvalue().splitlines()]
    assert [(line[1], line[4]) for line in said] == [
        ("dacs", "running"), ("dacs", "running"), ("dacs", "failed"), ("oracle", "running"),
    ]  # fmt: skip
    assert said[2][-2:] == ["log", str(one.order.log)]


def test_a_terminal_gets_all_runs_or_those_that_matter(make: MakeJobs) -> None:
    jobs = make("dacs", seeds=list(range(6)))
    board = Board(jobs)
    phases = dict.fromkeys(jobs, Phase.WAITING) | {jobs[0]: Phase.DONE, jobs[1]: Phase.RUNNING, jobs[2]: Phase.FAILED}
    board.update(phases)
    whole, small = shown(board.table(40)), shown(board.table(10))
    assert (whole.count("dacs"), small.count("dacs")) == (6, 2)
    assert whole.count("fake-source") == small.count("fake-source") == 1, "the one task is said once"
    assert "3 waiting, 1 running, 1 done, 1 failed" in small
    out = StringIO()
    with watching(jobs, Console(file=out, force_terminal=True, width=120, height=40)) as watch:
        watch(phases)
        watch(dict.fromkeys(jobs, Phase.FAILED))
    assert "6 failed" in out.getvalue()


def test_a_damaged_folder_is_shown_and_stops_nothing(make: MakeJobs) -> None:
    (job,) = make("dacs")
    job.folder.path.mkdir(parents=True)
    job.folder.record.write_text("{")
    board = Board([job])
    board.update({job: Phase.DONE})
    assert "record.json" in board.cells(job)[-1]


def test_failures_have_their_last_words_and_their_log(make: MakeJobs) -> None:
    bad, good = make("dacs", "oracle")
    bad.order.log.parent.mkdir(parents=True)
    bad.order.log.write_text("$ udabench run\nerror: no space\n")
    assert failures({bad: Phase.FAILED, good: Phase.DONE}).splitlines() == [
        "  fake-source-fake-target dacs seed 0: error: no space",
        f"    log {bad.order.log}",
    ]
