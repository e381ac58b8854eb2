"""SYNTHIA-RAND-CITYSCAPES, in its native layout."""

from __future__ import annotations

from collections.abc import Mapping

from udabench import Entry, hookimpl


@hookimpl
def register_datasets() -> Mapping[str, Entry]:
    return {"synthia": Entry("udabench_synthia.dataset:Synthia", "9,400 rendered frames, 16 classes (Ros et al. 2016)")}
