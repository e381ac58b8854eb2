"""Plugin: Fourier domain adaptation with its entropy term, self-training and averaged networks (Yang, Soatto, 2020)."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_methods() -> Mapping[str, Entry]:
    summary = (
        "source in the target's low frequencies, robust entropy, self-training, the mean of several bands' networks"
    )
    return {"fda": Entry("udabench_fda.method:FDA", summary)}
