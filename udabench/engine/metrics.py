"""``metrics.jsonl``: one JSON object for each logged step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from udabench.engine.files import explain_full_disk, write_text


class Metrics:
    """Lines ``{"stage": "train", "iteration": 50, "values": {"loss/source": 1.2, ...}}``.

    ``iteration`` counts completed steps of the whole run. JSON has no NaN: a value that is not finite (a class that did
    not occur) is left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def open(self, iteration: int) -> None:
        """Drop entries after ``iteration`` (and a torn last line), then go on behind them."""
        kept = [line for line, entry in _entries(self.path) if entry["iteration"] <= iteration]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, stage: str, iteration: int, values: Mapping[str, float]) -> None:
        """Append an entry; a kill of the process does not lose it. Raises DiskFull."""
        assert self._file is not None
        plain = {name: value for name, value in values.items() if math.isfinite(value)}
        with explain_full_disk(self.path):
            self._file.write(json.dumps({"stage": stage, "iteration": iteration, "values": plain}) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Before a checkpoint: what it counts as logged must outlast a power cut too."""
        assert self._file is not None
        with explain_full_disk(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole entries; empty when there is no file."""
    return [entry for _, entry in _entries(path)]


def _entries(path: Path) -> list[tuple[str, dict[str, Any]]]:
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "iteration" in entry:
            entries.append((line, entry))
    return entries
