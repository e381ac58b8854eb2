"""Plugin: T2S-DA, pulling target features to source features (Wang et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "self-training and a contrastive pull of translated source features to source prototypes"
    return {"t2sda": Entry("udabench_t2sda.method:T2SDA", summary)}
