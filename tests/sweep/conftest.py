"""Runs on the fakes, planned and never trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from udabench.sweep.file import parse_sweep
from udabench.sweep.job import Job, make_jobs
from udabench.testing import FAKES, fake_registry, write_fake_data

MakeJobs = Callable[..., list[Job]]
SMALL = {"preset": "quick", "network": "fake", "sources": "fake-source", "targets": "fake-target"}
SET = {"network.weights": "none", "iterations": 4, "data.crop": "32x32"}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJobs:
    """``make("source_only", "oracle", seeds=[0, 1], set={...})``: the jobs of these methods, or of ``rows``."""
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))
    monkeypatch.setenv("UDABENCH_DATA", str(tmp_path / "data"))
    write_fake_data(tmp_path / "data")

    def jobs(*methods: str, set: dict[str, Any] | None = None, **values: Any) -> list[Job]:
        rows = {"rows": [{"method": method} for method in methods]}
        asked = parse_sweep({**SMALL, **rows, "set": {**SET, **(set or {})}, **values}, "test")
        return make_jobs(fake_registry(), list(asked.points()), tmp_path / "runs", (FAKES,))

    return jobs
