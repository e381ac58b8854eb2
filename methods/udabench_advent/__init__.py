"""Plugin: ADVENT, adversarial alignment of weighted self-information (AdvEnt of Vu et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = "self-information on the target that a discriminator takes for the source's: AdvEnt, alone or with MinEnt"
    return {"advent": Entry("udabench_advent.method:Advent", summary)}
