"""The demonstration, whole: adaptation works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from udabench.results import Record, read_record


def demo(folder: Path, *arguments: str) -> dict[str, Record]:
    command = [sys.executable, "-m", "udabench", "demo", "--folder", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("panel.png", "leaderboards/toycity-toycity-real.md"):
        assert name in done.stdout
        assert (folder / name).is_file()
    with Image.open(folder / "panel.png") as picture:
        assert picture.width > 5 * 300
    records = [read_record(path.parent) for path in (folder / "runs").glob("*/*/record.json")]
    return {record.method: record for record in records}


def test_demo_ends_in_a_table_and_goes_on_where_it_was(tmp_path: Path) -> None:
    first = demo(tmp_path, "--iterations", "2")
    assert set(first) == {"source_only", "t2sda", "oracle"}
    assert demo(tmp_path, "--iterations", "2") == first


@pytest.mark.slow
def test_adaptation_closes_a_part_of_the_gap(tmp_path: Path) -> None:
    """Bounds are far below what was measured, so that only a break of the method or the data crosses them."""
    score = {name: record.headline.means["mIoU19"] for name, record in demo(tmp_path).items()}
    assert score["oracle"] - score["source_only"] > 0.12
    assert score["t2sda"] - score["source_only"] > 0.02
