"""Plugin: direct minimisation of the target's entropy (MinEnt of ADVENT, Vu et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "supervised on the source, and certain on the target: ADVENT's direct entropy loss"
    return {"min_entropy": Entry("udabench_min_entropy.method:MinEntropy", summary)}
