"""Plugin: DACS, self-training on images mixed across domains (Tranheden et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    return {"dacs": Entry("udabench_dacs.method:Dacs", "self-training on source classes pasted into target images")}
