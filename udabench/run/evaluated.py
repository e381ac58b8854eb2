"""What a run is evaluated on: a split of the target, or of the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from udabench.config import RunConfig
from udabench.size import Size


class Evaluated(NamedTuple):
    """A data set by name, its split and its options."""

    name: str
    split: str
    options: Mapping[str, Any]


def evaluated(config: RunConfig) -> Evaluated:
    """The set whose labels score a run."""
    split, data = config.evaluate.split, config.data
    if config.evaluate.domain == "source":
        return Evaluated(config.source, split, data.source_options)
    return Evaluated(config.target, split, data.target_options)


def usual_size(config: RunConfig) -> Size:
    """Input size of an evaluation that names none: as in training."""
    size = config.data.source_size if config.evaluate.domain == "source" else config.data.target_size
    assert size is not None, "plans resolve the sizes"
    return size
