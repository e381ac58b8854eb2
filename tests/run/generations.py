"""Runs of ``generations_plugin.py`` on the fakes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from udabench.engine.checkpoint import Checkpoints
from udabench.run.conduct import start_run
from udabench.run.heritage import Heritage, find_heritage
from udabench.run.plan import Plan, Request, make_plan
from udabench.testing import FAKES, SMALL, fake_registry, write_fake_data

PLUGIN = Path(__file__).with_name("generations_plugin.py")


class Home:
    """A folder with data and runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_fake_data(folder / "data")

    @cached_property
    def one(self) -> Path:
        """A finished run of one generation."""
        return self.run("one")

    def plan(self, method: str = "generations", **values: Any) -> Plan:
        roots = {f"data.roots.{name}": self.folder / "data" / name for name in ("fake-source", "fake-target")}
        flags = {**SMALL, **roots, "engine.checkpoint_every": 100, **values}
        request = Request(method, "fake-source", "fake-target", "quick", flags)
        return make_plan(fake_registry(PLUGIN), request, [FAKES, PLUGIN])

    def run(self, name: str, method: str = "generations", **values: Any) -> Path:
        return start_run(self.plan(method, **values), self.folder / name).folder

    def heritage(self, method: str = "generations", **values: Any) -> Heritage:
        found = find_heritage(self.plan(method, **{"init_from": self.one, **values}))
        assert found is not None
        return found


def weights(folder: Path) -> dict[str, Tensor]:
    last = Checkpoints(folder / "checkpoints").latest()
    assert last is not None
    return last.model()


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
