"""Plugin: AdaptSegNet, adversarial alignment of predictions at one or two levels (Tsai et al., 2018)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "predictions on the target that a discriminator takes for the source's: AdaptSegNet"
    return {"adaptseg": Entry("udabench_adaptseg.method:AdaptSeg", summary)}
