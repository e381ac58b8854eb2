"""Pages from records: numbers worked out by hand, the same bytes at every build, stale ones found."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from udabench.errors import RecordError
from udabench.leaderboard import Column, Line, Table, add, build, check, group, summary, to_markdown, to_rich
from udabench.leaderboard.page import MARKER
from udabench.plugins import import_file
from udabench.results import Revision, write_record

made = import_file(Path(__file__).parents[1] / "results" / "experiments.py")


def store(folder: Path, name: str = "run", **values: object) -> Path:
    """A run folder with a record."""
    run = folder / name
    write_record(run, *made.experiment(**values))
    return run


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Two seeds of source_only (40, 44) and of t2sda (60, 68), one of oracle (80)."""
    folder = tmp_path / "leaderboards"
    folder.mkdir()
    (folder / "README.md").write_text("by hand\n")
    runs = [("source_only", 0, 40), ("source_only", 1, 44), ("t2sda", 0, 60), ("t2sda", 1, 68), ("oracle", 0, 80)]
    for method, seed, percent in runs:
        name = f"{method}{seed}"
        add(store(tmp_path, name, method=method, seed=seed, percent=percent, target_labels=method == "oracle"), folder)
    build(folder)
    return folder


def page(board: Path) -> str:
    return (board / "dream-street.md").read_text(encoding="utf-8")


def row_of(text: str, title: str, method: str) -> list[str]:
    """Cells of a method's row in the table below the first heading that starts so."""
    lines = text.splitlines()
    below = lines[next(i for i, line in enumerate(lines) if line.startswith(title)) :]
    row = next(line for line in below if line.startswith(f"| {method}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_spread_over_seeds_by_hand(board: Path) -> None:
    """60 and 68: mean 64, sample deviation 4 sqrt 2 = 5.66; over 40 and 44: +20 and +24, 22 -+ 12.706 * 2."""
    cells = row_of(page(board), "## Protocol", "t2sda")
    assert cells[3:] == ["64.00 ± 5.66", "64.00 ± 5.66", "+22.00 [-3.41, +47.41]", "2"]
    assert row_of(page(board), "## Protocol", "source_only")[3:] == ["42.00 ± 2.83", "42.00 ± 2.83", "–", "2"]
    assert row_of(page(board), "## Protocol", "oracle")[3:] == ["80.00", "80.00", "+40.00", "1"]


def test_order_and_marks(board: Path) -> None:
    rows = [line for line in page(board).split("### ")[0].splitlines() if line.startswith("| ")]
    assert [row.split()[1] for row in rows[1:]] == ["t2sda", "source_only", "oracle"]
    assert "| oracle (target labels)[^1]" in page(board)
    assert "[^1]: trained on the target's labels: an upper bound, not adaptation" in page(board)


def test_classes_settings_and_cost(board: Path) -> None:
    assert row_of(page(board), "### IoU by class", "t2sda")[3:] == ["64.0 ± 5.7"] * 3
    config_hash = made.experiment()[0].config_hash
    assert row_of(page(board), "### Settings", "t2sda")[3:] == [
        config_hash, "imagenet", "None / None", "512x512", "2 + 2", "40000", "adamw 6e-05", "float32", "None", "whole",
        "student", "last",
    ]  # fmt: skip
    assert row_of(page(board), "### Cost", "t2sda")[3:] == [
        "44.5 M", "160", "60.0 min", "250 ms", "12.5 %", "1.50 GiB", "–", "cpu",
    ]  # fmt: skip


def test_rebuild_is_byte_identical(board: Path, tmp_path: Path) -> None:
    before = (board / "dream-street.md").read_bytes()
    assert build(board) == [board / "dream-street.md"]
    assert (board / "dream-street.md").read_bytes() == before
    # Added in the opposite order, elsewhere.
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted((board / "results").rglob("*.json"), reverse=True):
        add(path, other)
    build(other)
    assert (other / "dream-street.md").read_bytes() == before


def test_check_finds_what_is_stale(board: Path, tmp_path: Path) -> None:
    target = board / "dream-street.md"
    assert check(board) == []
    target.write_text(page(board) + "tampered")
    assert check(board) == [target]
    target.unlink()
    assert check(board) == [target]
    build(board)
    add(store(tmp_path, "third", method="t2sda", seed=2, percent=62), board)
    assert check(board) == [target]
    build(board)
    assert check(board) == []


def test_pages_go_with_their_records(board: Path) -> None:
    shutil.rmtree(board / "results" / "dream-street")
    assert check(board) == [board / "dream-street.md"]
    assert build(board) == []
    assert sorted(path.name for path in board.glob("*.md")) == ["README.md"]


def test_protocols_never_share_a_table(board: Path, tmp_path: Path) -> None:
    other = replace(made.PROTOCOL, align_corners=True)
    add(store(tmp_path, "aligned", method="t2sda", percent=66, protocol=other), board)
    build(board)
    parts = page(board).split("## Protocol ")[1:]
    assert sorted(part[1:13] for part in parts) == sorted([made.PROTOCOL.hash, other.hash])
    for part in parts:
        if part.startswith(f"`{other.hash}"):
            assert "align corners: True" in part
            # Nothing to compare with here, although the other table has a baseline.
            assert row_of(part, "| method", "t2sda")[3:] == ["66.00", "66.00", "–", "1"]
        else:
            assert "66.00" not in part


def test_teacher_and_best_stand_apart(board: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    add(store(tmp_path, "x", teacher=70, best=72), folder)
    build(folder)
    text = page(folder)
    assert row_of(text, "## Protocol", "t2sda")[3] == "60.00"
    below = [line for line in text.split("### The same runs")[1].splitlines() if line.startswith("| t2sda")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")][3:6] for line in below]
    assert cells == [["teacher", "last", "70.00"], ["student", "best (oracle selection)", "72.00"]]
    assert "### The same runs" not in page(board)


def test_baseline_needs_the_same_network(tmp_path: Path) -> None:
    records = [
        made.experiment("source_only", percent=40)[0],
        made.experiment("t2sda", percent=60, values={"network.name": "lite0"})[0],
    ]
    assert {line.cells[-2] for line in summary(records)[0].lines} == {"–"}


def test_nearest_baseline_is_taken(tmp_path: Path) -> None:
    """Two source_only rows: the one of equal length counts."""
    records = [
        made.experiment("source_only", percent=40, values={"iterations": 100})[0],
        made.experiment("source_only", percent=50)[0],
        made.experiment("t2sda", percent=60, values={"iterations": 100})[0],
    ]
    assert summary(records)[0].lines[0].cells[-2] == "+20.00"


def test_undefined_classes() -> None:
    matrices = np.zeros((2, 3, 3), np.int64)
    matrices[:, 0, 0] = 5
    row = group([made.experiment(matrices=matrices)[0]])[0]
    assert math.isnan(row.iou("sky").mean)
    assert summary([row.first])[0].lines[0].cells[3] == "100.00"


def test_notes_of_a_row_once_each() -> None:
    records = [made.experiment(seed=seed, collapse=["sky vanished"], resumed=seed)[0] for seed in (0, 1)]
    notes = summary(records)[0].lines[0].notes
    assert notes.count("collapse: sky vanished") == 1
    assert "resumed 1 time" in notes


def test_revisions_that_differ_or_are_dirty_are_noted() -> None:
    records = [
        made.experiment(seed=seed)[0].model_copy(update={"revision": Revision(commit=str(seed) * 40, dirty=False)})
        for seed in (0, 1)
    ]
    assert summary(records)[0].lines[0].notes == ("the seeds ran on different revisions of the code",)
    dirty = records[0].model_copy(update={"revision": Revision(commit="0" * 40, dirty=True)})
    assert summary([dirty])[0].lines[0].notes == ("the code had uncommitted changes",)


def test_a_method_in_a_method_is_named() -> None:
    values = {"settings": {"inner": "shell", "inner_settings": {"inner": "core", "inner_settings": {"ema": 0.5}}}}
    record, _ = made.experiment("mic")
    (row,) = group([record.model_copy(update={"config": {**record.config, **dict(flat(values))}})])
    assert row.method == "core + shell + mic"
    (plain,) = group([record])
    assert plain.method == "mic"


def flat(values: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_seeds_in_any_order() -> None:
    """File names sort seed 10 before seed 2."""
    records = [made.experiment(seed=seed, percent=60)[0] for seed in (10, 2, 1)]
    assert [record.seed for record in group(records)[0].records] == [1, 2, 10]
    with pytest.raises(RecordError, match="the same experiment with the same seed"):
        group([*records, records[0]])


def test_add_twice_is_harmless(board: Path, tmp_path: Path) -> None:
    run = store(tmp_path, "again", method="t2sda", seed=0, percent=60, resumed=1)
    assert add(run, board).parent == board / "results" / "dream-street"
    assert len(list((board / "results").rglob("*.json"))) == 5


def test_add_refuses_another_result_of_the_same_experiment(board: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="already holds another result of this experiment"):
        add(store(tmp_path, "again", method="t2sda", seed=0, percent=90), board)


def test_add_refuses_what_is_damaged(board: Path, tmp_path: Path) -> None:
    run = store(tmp_path, "bad", method="t2sda", seed=3)
    values = json.loads((run / "record.json").read_text())
    values["evaluations"][0]["iou"]["sky"] = 0.99
    (run / "record.json").write_text(json.dumps(values))
    with pytest.raises(RecordError, match="not those of its matrices"):
        add(run, board)
    values["task"]["name"] = "../elsewhere"
    (run / "record.json").write_text(json.dumps(values))
    with pytest.raises(RecordError, match=r"task\.name: String should match"):
        add(run, board)
    assert len(list((board / "results").rglob("*.json"))) == 5


def test_build_names_a_damaged_record(board: Path) -> None:
    path = next((board / "results").rglob("t2sda*s0.matrices"))
    path.write_bytes(path.read_bytes()[:50])
    before = page(board)
    with pytest.raises(RecordError, match=path.name):
        build(board)
    assert page(board) == before


def test_build_refuses_one_experiment_twice(board: Path) -> None:
    path = next((board / "results").rglob("t2sda*s0.json"))
    for suffix in (".json", ".matrices"):
        shutil.copy(path.with_suffix(suffix), path.with_name("copy" + suffix))
    with pytest.raises(RecordError, match="the same experiment with the same seed"):
        build(board)


def test_record_in_the_wrong_folder(board: Path) -> None:
    (board / "results" / "dream-street").rename(board / "results" / "other")
    with pytest.raises(RecordError, match="belongs to task dream-street, not other"):
        build(board)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="There is no folder"):
        build(tmp_path / "nowhere")


def test_no_records(tmp_path: Path) -> None:
    assert build(tmp_path) == []
    assert check(tmp_path) == []


def test_pages_are_marked(board: Path) -> None:
    assert page(board).startswith(MARKER + "\n\n# dream → street\n")
    assert page(board).endswith("\n")
    assert not page(board).endswith("\n\n")
    assert "\n\n\n" not in page(board)


def test_terminal_shows_the_same_cells() -> None:
    records = [made.experiment("source_only", percent=40)[0], made.experiment(percent=60, collapse=["[bold]x"])[0]]
    out = StringIO()
    Console(file=out, width=200).print(to_rich(summary(records)[0]))
    assert "+20.00" in out.getvalue()
    assert "collapse: [bold]x" in out.getvalue()


def test_markdown_is_escaped() -> None:
    table = Table("t", (Column("a*"), Column("b", False)), (Line(("1|2", "x"), ("some `note`",)),), "caption")
    assert to_markdown(table).splitlines() == [
        "|      a\\* | b   |",
        "|---------:|:----|",
        "| 1\\|2[^1] | x   |",
        "",
        "caption",
        "",
        "[^1]: some \\`note\\`",
    ]


def test_rows_fit_their_columns() -> None:
    with pytest.raises(ValueError, match="another number of cells"):
        Table("t", (Column("a"),), (Line(("1", "2")),))


def test_rows_of_one_name_say_what_they_differ_in() -> None:
    """Of the values that make an experiment: the device and how often it logs do not."""
    values = [{}, {"optim.lr": 0.5, "engine.log_every": 7}, {"optim.lr": 0.25, "data.flip": 0.0}]
    same = [made.experiment(values=value)[0] for value in values]
    other = made.experiment("dacs", values={"optim.power": 3.0})[0]
    told = {row.setting("optim.lr"): row.variant for row in group([*same, other]) if row.method == "t2sda"}
    assert told == {6e-5: "flip=0.5, lr=6e-05", 0.5: "flip=0.5, lr=0.5", 0.25: "flip=0.0, lr=0.25"}
    assert [row.variant for row in group([*same, other]) if row.method == "dacs"] == [""]
    (table,) = summary([*same, other])
    assert {line.cells[1] for line in table.lines} == {"–", *told.values()}


def test_a_long_difference_is_cut() -> None:
    many = {"optim.lr": 0.5, "optim.power": 2.0, "optim.momentum": 0.5, "data.flip": 0.0, "iterations": 7}
    records = [made.experiment()[0], made.experiment(values=many)[0]]
    assert {row.variant.count("=") for row in group(records)} == {4}
    assert all(row.variant.endswith(", ...") for row in group(records))
