"""Plugin: class-balanced self-training (Zou et al., 2018) with the regularisers of CRST (Zou et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "rounds of self-training on the same share of every class, on wish with confidence regularisers (CRST)"
    return {"cbst": Entry("udabench_cbst.method:CBST", summary)}
