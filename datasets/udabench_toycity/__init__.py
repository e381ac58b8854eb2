"""Toycity: a made-up city in two looks, a game's and a photograph's. Nothing is downloaded; every picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping

from udabench import Entry, hookimpl


@hookimpl
def register_datasets() -> Mapping[str, Entry]:
    return {
        "toycity": Entry("udabench_toycity.dataset:ToyCity", "procedural street scenes, game look (19 classes)"),
        "toycity-real": Entry("udabench_toycity.dataset:ToyCityReal", "procedural street scenes, photo look"),
    }
