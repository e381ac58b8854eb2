"""Plugin: prototypical pseudo-label denoising and distillation into self-supervised networks (Zhang et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "soft labels rectified by distances to prototypes, alike for two views; then distilled stage by stage"
    return {"proda": Entry("udabench_proda.method:ProDA", summary)}
