"""Plugin file: the fake data sets and the fake network, as ``udabench ... --plugin`` takes it."""

from __future__ import annotations

from collections.abc import Mapping

from udabench.hookspecs import Entry, hookimpl


@hookimpl
def register_datasets() -> Mapping[str, Entry]:
    return {
        "fake-source": Entry("udabench.testing.dataset:FakeSource", "blocks of colour, for tests"),
        "fake-target": Entry("udabench.testing.dataset:FakeTarget", "darker and noisier blocks, for tests"),
    }


@hookimpl
def register_networks() -> Mapping[str, Entry]:
    return {"fake": Entry("udabench.testing.network:FakeNetwork", "two convolutions, for tests")}
