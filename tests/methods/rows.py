"""A method's rows as a run from GTA5 to Cityscapes has them."""

from __future__ import annotations

from pathlib import Path

from udabench.plugins import load_registry
from udabench.resolve import Resolved
from udabench.run.plan import Request, make_plan
from udabench.testing.subject import without_user_config

REGISTRY = load_registry()


def row(method: str, preset: str | None = None) -> Resolved:
    with without_user_config(Path("nowhere")):
        return make_plan(REGISTRY, Request(method, "gta5", "cityscapes", preset)).resolved
