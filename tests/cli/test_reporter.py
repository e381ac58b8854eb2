"""A reporter plugin prints the stored records in its own format."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from udabench.cli import cli

PLUGIN = """
from udabench import Entry, hookimpl

def count(records):
    return f"{len(list(records))} records"

@hookimpl
def register_reporters():
    return {"count": Entry("count_reporter:count")}
"""


def test_reporter_gets_the_records(tmp_path: Path) -> None:
    plugin = tmp_path / "count_reporter.py"
    plugin.write_text(PLUGIN)
    arguments = ["leaderboard", "--folder", str(tmp_path), "report", "count", "--plugin", str(plugin)]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output == "0 records\n"
