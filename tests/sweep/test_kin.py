"""Rows that begin from other rows: what a file may say, what a choice carries along, and which runs they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from udabench.cli import cli
from udabench.errors import UsageError
from udabench.plugins import load_registry
from udabench.results import read_record
from udabench.run.conduct import start_run
from udabench.run.heritage import steps_taken_over
from udabench.run.plan import Plan
from udabench.sweep.duration import Question, build_all
from udabench.sweep.file import Point, parse_sweep, read_sweep
from udabench.sweep.job import Job, State, choose, make_jobs
from udabench.testing import FAKES

MakeJobs = Callable[..., list[Job]]
ROOT = Path(__file__).parents[2]
CHAIN = [
    {"method": "third", "init_from": "second gen"},
    {"method": "first"},
    {"method": "second", "label": "second gen", "init_from": "first"},
    {"method": "other"},
]


def points(rows: list[dict[str, Any]], **values: Any) -> list[Point]:
    return list(parse_sweep({"sources": ["a", "b"], "seeds": [0, 1], "rows": rows, **values}, "test").points())


def test_a_row_is_named_by_its_label_or_its_method() -> None:
    found = points(CHAIN)
    named = {point.place: point for point in found}
    pairs = [(point, named[point.ancestor]) for point in found if point.ancestor is not None]
    assert [(p.row, p.request.source, q.row, q.request.source) for p, q in pairs] == [
        *(("third", source, "second gen", source) for source in "ab"),
        *(("second gen", source, "first", source) for source in "ab"),
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"method": "sam"}, {"method": "x", "init_from": "smam"}],
            ["x: init_from 'smam': Unknown row of its group 'smam'. Did you mean 'sam'? Known: sam, x."],
        ),
        ([{"method": "x", "init_from": "x"}], ["x: init_from 'x': a row cannot begin from itself"]),
        (
            [{"method": "x"}, {"method": "x", "init_from": "x"}, {"method": "y", "init_from": "z"}],
            ["x: init_from 'x': 2 rows of the group have this name. Give each a 'label'", "y: init_from 'z': Unknown"],
        ),
        (
            [{"method": "x", "grid": {"k": [1, 2]}}, {"method": "y", "init_from": "x"}],
            ["y: init_from 'x': the grid of that row makes 2 configurations"],
        ),
        (
            [{"method": name, "init_from": other} for name, other in ("wx", "xy", "yz", "zx")],
            ["x: init_from 'y': the rows begin from each other in a circle (x <- y <- z <- x)"],
        ),
        (
            [{"method": "x", "seeds": 1, "sources": "a"}, {"method": "y", "init_from": "x"}],
            ["no run of a -> cityscapes seed 0, b -> cityscapes seed 0, b -> cityscapes seed 1. Give both the same"],
        ),
        ([{"method": "x"}, {"method": "y", "init_from": ""}], ["rows.1.init_from:"]),
        ([{"method": "x", "init_frm": "y"}], ["rows.0.init_frm: unknown key. Did you mean 'init_from'?"]),
    ],
)
def test_names_that_cannot_be_meant_are_refused(rows: list[dict[str, Any]], said: list[str]) -> None:
    with pytest.raises(UsageError, match="test describes no sweep") as error:
        points(rows)
    assert [part for part in said if part not in str(error.value)] == []
    assert str(error.value).count("circle") == str(said).count("circle")


def test_a_row_of_another_group_is_not_meant() -> None:
    groups = [{"rows": [{"method": "x"}]}, {"rows": [{"method": "y", "init_from": "x"}]}]
    with pytest.raises(UsageError, match="Unknown row of its group 'x'"):
        parse_sweep({"sources": "a", "groups": groups}, "test")


def test_a_choice_carries_along_what_it_begins_from() -> None:
    found = choose(points(CHAIN), method=["third"], source=["b"], seed=[1])
    assert [(p.row, p.request.source, p.seeds, p.carried) for p in found] == [
        ("third", "b", (1,), False),
        ("first", "b", (1,), True),
        ("second gen", "b", (1,), True),
    ]
    assert [p.row for p in choose(points(CHAIN), method=["other"], source=["a"])] == ["other"]
    rows = [{"method": "x"}, {"method": "y", "init_from": "x", "seeds": 1}]
    assert [(p.row, p.seeds) for p in choose(points(rows, sources="a"), method=["y"])] == [("x", (1,)), ("y", (1,))]


def test_the_runs_of_a_row_begin_from_those_of_the_same_seed(make: MakeJobs) -> None:
    rows = [
        {"method": "dacs", "label": "c", "init_from": "b"},
        {"method": "source_only", "label": "a"},
        {"method": "dacs", "label": "b", "init_from": "a"},
        {"method": "dacs"},
    ]
    jobs = make(rows=rows, seeds=[0, 3])
    assert [(job.row, job.seed) for job in jobs] == [(row, seed) for row in ("c", "a", "b", "dacs") for seed in (0, 3)]
    assert [None if job.ancestor is None else jobs.index(job.ancestor) for job in jobs] == [
        4, 5, None, None, 2, 3, None, None,
    ]  # fmt: skip
    assert len({job.plan.config.hash for job in jobs}) == 4
    c, a, b = jobs[1], jobs[3], jobs[5]
    assert (b.plan.config.ancestor, c.plan.config.ancestor) == (
        f"row {a.plan.config.hash}",
        f"row {b.plan.config.hash}",
    )
    assert c.plan.config.init_from == b.order.folder


def test_a_run_is_estimated_before_its_ancestor_is_there(make: MakeJobs) -> None:
    job = make(rows=[{"method": "source_only"}, {"method": "dacs", "init_from": "source_only"}])[1]
    (finding,) = build_all([Question(job.request)], (FAKES,))
    assert finding.problem is None
    assert finding.seconds is not None


def test_what_is_wrong_with_a_row_and_its_ancestor_is_said_together(make: MakeJobs) -> None:
    rows = [
        {"method": "source_only", "set": {"itertions": 3}},
        {"method": "dacs", "init_from": "source_only", "set": {"emma": 1}},
        {"method": "oracle"},
        {"method": "dacs", "label": "both", "init_from": "oracle", "set": {"init_from": "runs/x"}},
    ]
    with pytest.raises(UsageError) as error:
        make(rows=rows)
    for said in ("source_only: Unknown key 'itertions'", "dacs: Unknown key 'emma'", "both: init_from is said by the"):
        assert said in str(error.value)


def test_it_is_the_run_of_the_command_line(make: MakeJobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [{"method": "source_only"}, {"method": "dacs", "init_from": "source_only"}]
    elder, other, *children = make(rows=rows, seeds=[3, 4], set={"iterations": 2})
    for job in (elder, other):
        start_run(job.plan, tmp_path / "runs")
    begun: list[Plan] = []
    with monkeypatch.context() as patch:
        patch.setattr("udabench.cli.run._run_all", lambda plans, runs: begun.extend(plans))
        for job in children:
            cli.main(list(job.order.fresh), standalone_mode=False)
    for plan, job in zip(begun, children, strict=True):
        assert plan.config.model_dump() == job.plan.config.model_dump()
        assert plan.folder_name == job.plan.folder_name
    # By hand, with the folder said in another way.
    child = children[1]
    words = [str(Path("runs") / other.plan.folder_name) if word == str(other.order.folder) else word
             for word in child.order.fresh]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert child.state() == State.NEW
    cli.main(words, standalone_mode=False)
    assert [job.state() for job in children] == [State.NEW, State.DONE]
    record = read_record(child.order.folder)
    assert record.config_hash == child.plan.config.hash
    assert record.flags.ancestor is not None
    assert record.flags.ancestor.seed == 4


def test_the_readmes_rows_can_be_planned(tmp_path: Path) -> None:
    (rows,) = re.findall(r"```yaml\n(rows:.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "s.yaml").write_text(f"sources: gta5\nseeds: [0, 1]\n{rows}")
    jobs = make_jobs(load_registry(), list(read_sweep(tmp_path / "s.yaml").points()), tmp_path / "runs", ())
    assert [job.row for job in jobs if job.ancestor] == ["cbst", "cbst", "sam gen 2", "sam gen 2"]


@pytest.mark.parametrize(("iterations", "taken"), [(6, None), (9, 6)])
def test_a_plan_knows_what_its_runs_will_take_over(make: MakeJobs, iterations: int, taken: int | None) -> None:
    """A source-only network and one generation, of three steps each; then another generation, of three."""
    second = {"method": "sam", "init_from": "first", "set": {"generations": 2, "iterations": iterations}}
    rows = [{"method": "sam", "label": "first", "set": {"iterations": 6}}, second]
    elder, job = make(rows=rows, preset="quick-pseudo-only")
    (finding,) = build_all([Question(job.request, (elder.request, elder.order.folder))], (FAKES,))
    if taken is None:
        assert finding.problem is not None
        assert "stage 'baseline' has another iterations (3 there, 2 here)" in finding.problem
        assert "with about --iterations 9 this one is as long as there" in finding.problem
    else:
        assert finding.problem is None
        assert steps_taken_over(job.plan, elder.plan, elder.order.folder) == taken


def test_another_network_cannot_be_begun_from(make: MakeJobs) -> None:
    elder, job = make(rows=[{"method": "source_only", "network": "lite0"}, {"method": "dacs"}])
    with pytest.raises(UsageError, match="this run's network is lite0, not fake"):
        steps_taken_over(job.plan, elder.plan, elder.order.folder)
