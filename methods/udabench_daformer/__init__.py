"""Plugin: DAFormer (Hoyer et al., 2022), and HRDA's training by the choice of its network."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "self-training with rare class sampling, feature distance and warm-up"
    return {"daformer": Entry("udabench_daformer.method:DAFormer", summary)}
