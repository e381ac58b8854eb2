"""Plugin: SAM, inter-pixel correlations of the source transferred by a self-attention module."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "self-training whose logits follow a self-attention module that was trained on the source"
    around = "around another method (--method proda --set addons=sam): its logits follow SAM's module as well"
    return {
        "sam": Entry("udabench_sam.method:SAM", summary),
        "sam_addon": Entry("udabench_sam.addon.method:SAMAddon", around),
    }
