"""Plugin: MIC, masked image consistency around a self-training method (Hoyer et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "around a self-training method (--set inner=...): its pseudo-labels from masked images as well"
    return {"mic": Entry("udabench_mic.method:MIC", summary)}
