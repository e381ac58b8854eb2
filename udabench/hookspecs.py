"""The hooks a plugin may implement. pluggy answers only "who is there"; what a plugin does is a class.

from udabench import Entry, hookimpl

@hookimpl
def register_methods():
    return {"mine": Entry("my_package.method:Mine", "one line about it")}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

PROJECT = "udabench"
API_VERSION = 1
"""Raised when a contract changes. A plugin may state ``API_VERSION = 1``; another number is reported, not loaded."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Entry:
    """A name's target: a class, or ``"package.module:Class"``, imported when it is first used."""

    target: str | type
    summary: str = ""


@hookspec
def register_methods() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a subclass of :class:`udabench.method.Method`. Its presets lie in ``presets/*.yaml`` beside it."""


@hookspec
def register_datasets() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a subclass of :class:`udabench.dataset.Dataset`."""


@hookspec
def register_backbones() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a subclass of :class:`udabench.network.Backbone`: image -> feature pyramid."""


@hookspec
def register_heads() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a subclass of :class:`udabench.network.DecodeHead`: pyramid -> logits."""


@hookspec
def register_networks() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a whole :class:`udabench.network.Network` that is more than backbone + head, or wraps one."""


@hookspec
def register_translators() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a subclass of :class:`udabench.translate.base.Translator`."""


@hookspec
def register_reporters() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a callable ``(records) -> str`` that writes a leaderboard in another format."""


@hookspec
def register_analyses() -> Mapping[str, Entry]:  # type: ignore[empty-body]
    """Name -> a subclass of :class:`udabench.analysis.base.Analysis`, made by ``udabench analyze``."""


@hookspec
def run_finished(folder: str, record: Mapping[str, Any]) -> None:
    """A run has ended and its record is written."""
