"""Cityscapes, in its native layout."""

from __future__ import annotations

from collections.abc import Mapping

from udabench import Entry, hookimpl


@hookimpl
def register_datasets() -> Mapping[str, Entry]:
    return {
        "cityscapes": Entry("udabench_cityscapes.dataset:Cityscapes", "5,000 street photographs (Cordts et al. 2016)")
    }
