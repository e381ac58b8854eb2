"""Plugin: supervised on the source alone: the lower bound."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    return {
        "source_only": Entry(
            "udabench_source_only.method:SourceOnly", "supervised on the source alone: the lower bound"
        )
    }
