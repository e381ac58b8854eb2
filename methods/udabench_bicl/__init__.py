"""Plugin: bi-directional contrastive learning with dynamic pseudo-labels (Lee et al., 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "pixels against the other domain's prototypes, both ways, and labels from calibrated prototypes"
    return {"bicl": Entry("udabench_bicl.method:BiCL", summary)}


@hookimpl
def run_finished(folder: str, record: Mapping[str, Any]) -> None:
    """Prints what the referee found of the four kinds of labels: the paper's Table 4."""
    from udabench_bicl.report import print_table

    print_table(folder)
