"""The list of a method's presets."""

from __future__ import annotations

import csv
import io

import pytest
from click.testing import CliRunner, Result

from udabench.cli.listing import presets
from udabench.cli.preset_table import preset_table
from udabench.errors import UsageError
from udabench.plugins import load_registry
from udabench.presets import Preset, presets_of

ROWS = (
    Preset(
        "default", "the paper's", table="Tab 1", published={"a-b": {"mIoU": 60.4}, "c-b": {"mIoU": 5.0, "tail": 4.0}}
    ),
    Preset("ablation", "one thing less", table="Tab 2", published={"a-b": {"mIoU": 50.0}}),
    Preset("lost", "another", table="Tab 3", reason="the text has lost it"),
    Preset("quick", "small"),
)


def listed(*arguments: str) -> Result:
    result = CliRunner().invoke(presets, [*arguments])
    assert result.exception is None, result.exception
    return result


def test_a_column_a_task_and_a_reason_for_what_is_null() -> None:
    table = preset_table("toy", ROWS)
    assert [column.name for column in table.columns] == ["preset", "about", "table", "a-b", "c-b"]
    assert [(line.cells, line.notes) for line in table.lines] == [
        (("ablation", "one thing less", "Tab 2", "mIoU 50.0", "null"), ()),
        (("default", "the paper's", "Tab 1", "mIoU 60.4", "mIoU 5.0, tail 4.0"), ()),
        (("lost", "another", "Tab 3", "null", "null"), ("the text has lost it",)),
        (("quick", "small", "", "null", "null"), ()),
    ]


def test_rows_of_one_task() -> None:
    table = preset_table("toy", ROWS, "c-b")
    assert [line.cells for line in table.lines] == [("default", "the paper's", "Tab 1", "mIoU 5.0, tail 4.0")]
    with pytest.raises(UsageError, match=r"figures of toy 'd-b'\. Did you mean 'a-b'\?|Known: a-b, c-b"):
        preset_table("toy", ROWS, "d-b")


def test_every_preset_is_listed_in_every_form() -> None:
    names = set(presets_of(load_registry().methods.describe("t2sda")))
    rows = list(csv.reader(io.StringIO(listed("t2sda", "--format", "csv").output)))
    assert {row[0] for row in rows[1:]} == names
    assert rows[0][:3] == ["preset", "about", "table"]
    assert rows[0][-1] == "reason"
    srw = next(row for row in rows if row[0] == "srw")
    assert srw[3:] == ["null"] * (len(rows[0]) - 4) + ["the text has lost the body of the table"]
    markdown = listed("t2sda", "--format", "md").output
    text = listed("t2sda").output
    for name in names:
        assert f"| {name}" in markdown
        assert f"\n{name} " in text


def test_figures_and_reasons_are_readable() -> None:
    text = " ".join(listed("t2sda").output.split())
    assert "gta5-cityscapes mIoU19 60.4; synthia-cityscapes mIoU16 57.6, mIoU13* 65.4" in text
    assert "null: the text has lost the body of the table" in text
