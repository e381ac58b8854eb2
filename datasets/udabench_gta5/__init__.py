"""GTA5 (Playing for Data), in its native layout."""

from __future__ import annotations

from collections.abc import Mapping

from udabench import Entry, hookimpl


@hookimpl
def register_datasets() -> Mapping[str, Entry]:
    return {"gta5": Entry("udabench_gta5.dataset:Gta5", "24,966 frames of a game, 19 classes (Richter et al. 2016)")}
