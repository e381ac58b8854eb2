"""CamVid in SegNet's 11 classes, whole and split into day and dusk."""

from __future__ import annotations

from collections.abc import Mapping

from udabench import Entry, hookimpl


@hookimpl
def register_datasets() -> Mapping[str, Entry]:
    return {
        "camvid": Entry("udabench_camvid.dataset:CamVid", "701 street photographs, 11 classes (Brostow et al. 2009)"),
        "camvid-day": Entry("udabench_camvid.dataset:CamVidDay", "CamVid's three sequences by day"),
        "camvid-dusk": Entry("udabench_camvid.dataset:CamVidDusk", "CamVid's sequence at dusk"),
    }
