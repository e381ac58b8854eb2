"""The command line, called in this process. Generated checkpoints come from the networks' tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from udabench.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))


class Said(NamedTuple):
    """How a command ended, and what it printed, in one line."""

    code: int
    text: str


@pytest.fixture
def udabench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Said]:
    """``udabench(*arguments)`` in an empty folder, with nothing of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UDABENCH_DATA", raising=False)
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))

    def call(*arguments: object) -> Said:
        monkeypatch.setattr("sys.argv", ["udabench", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capfd.readouterr()
        return Said(code, " ".join((out + err).split()))

    return call
