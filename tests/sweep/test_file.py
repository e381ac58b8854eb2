"""What a file asks for, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from udabench.errors import UsageError
from udabench.sweep.file import Point, parse_sweep, read_sweep

WHOLE = """
sources: [a, b]
seeds: [0, 1]
preset: quick
set: {ema: 0.9, iterations: 5}
groups:
  - targets: t
    set: {ema: 0.8}
    rows:
      - method: one
      - {method: two, label: second, sources: c, seeds: 3, set: {ema: 0.7}, grid: {optim.lr: [0.1, 0.2], x: [1, 2]}}
  - rows:
      - {method: three, network: lite0, preset: full}
"""


def points(values: dict[str, Any]) -> list[Point]:
    return list(parse_sweep(values, "test").points())


def test_the_innermost_wins_and_settings_add_up(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(WHOLE)
    found = list(read_sweep(tmp_path / "f.yaml").points())
    assert [(p.row, p.request.source, p.request.target, p.seeds) for p in found] == [
        ("one", "a", "t", (0, 1)),
        ("one", "b", "t", (0, 1)),
        *((f"second optim.lr={lr} x={x}", "c", "t", (3,)) for lr in (0.1, 0.2) for x in (1, 2)),
        ("three", "a", "cityscapes", (0, 1)),
        ("three", "b", "cityscapes", (0, 1)),
    ]
    assert found[0].request.overrides == {"ema": 0.8, "iterations": 5}
    assert found[3].request.overrides == {"iterations": 5, "ema": 0.7, "optim.lr": 0.1, "x": 2}
    assert [p.request.preset for p in found] == ["quick"] * 6 + ["full"] * 2
    assert [p.request.flags for p in found[-2:]] == [{"network.name": "lite0"}] * 2
    assert found[0].request.flags == {}


def test_what_is_said_last_also_stands_last() -> None:
    """A short key and a full one may mean the same value: the resolver lets the later one win."""
    row = {"method": "m", "set": {"ema": 3}}
    values = {"sources": "a", "set": {"ema": 1}, "groups": [{"set": {"settings.ema": 2}, "rows": [row]}]}
    assert list(points(values)[0].request.overrides.items()) == [("settings.ema", 2), ("ema", 3)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"rows": [{"metod": "x"}]},
            ["rows.0.method: field required", "rows.0.metod: unknown key. Did you mean 'meth"],
        ),
        ({"rows": [{"method": "x"}], "sead": 1}, ["sead: unknown key. Did you mean 'seeds'?"]),
        ({"groups": [{"rows": []}], "seeds": [-1]}, ["seeds.0:", "groups.0.rows:"]),
        ({"sources": "a", "rows": [{"method": "x", "seeds": [1, 1]}]}, ["rows.0: 1 stands twice"]),
        ({"sources": "a", "rows": [{"method": "x", "seeds": True}]}, ["rows.0.seeds.0:"]),
        ({"sources": "a", "rows": [{"method": "x", "grid": {"k": []}}]}, ["rows.0.grid.k:"]),
        ({"rows": [{"method": "x"}, {"method": "y", "label": "z"}]}, ["no source is named for x, z"]),
        (
            {"sources": "a", "set": {"k": 1}, "rows": [{"method": "x", "grid": {"k": 2}}]},
            ["x: k stands in 'set' and in"],
        ),
        ({"sources": "a"}, ["there are no rows"]),
    ],
)
def test_every_problem_is_named(values: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UsageError, match="test describes no sweep") as error:
        points(values)
    assert [part for part in said if part not in str(error.value)] == []
