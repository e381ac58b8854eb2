"""An evaluation set of any length fits: nothing of an image stays but sums and samples of fixed size."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from analysis_fakes import make, seen

from udabench.analysis.base import Analysis, Seen
from udabench.analysis.means import ClassSums
from udabench.analysis.tsne import Reservoir
from udabench.evaluate.entropy import EntropyProbe
from udabench.plugins import load_registry

NAMES = load_registry().analyses.names()


def images(count: int, place: str, references: list[Any]) -> Iterator[Seen]:
    rng = torch.Generator().manual_seed(0)
    for _ in range(count):
        features = torch.rand(3, 40, 50, generator=rng)
        references.append(weakref.ref(features))
        yield seen(features, torch.randint(0, 3, (40, 50), generator=rng), place)  # type: ignore[arg-type]


def kept_bytes(held: object) -> int:
    """All numbers that an object leads to."""
    if isinstance(held, torch.Tensor):
        return held.untyped_storage().nbytes()
    if isinstance(held, (Analysis, ClassSums, Reservoir)):
        return sum(map(kept_bytes, vars(held).values()))
    if isinstance(held, dict):
        return sum(map(kept_bytes, held.values()))
    if isinstance(held, (list, tuple)):
        return sum(map(kept_bytes, held))
    return sys.getsizeof(held) if isinstance(held, (int, float)) else 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_grows_with_the_images(name: str) -> None:
    analysis = make(name)
    places = sorted({place for turn in analysis.rounds for place in turn})
    sizes = []
    # Some keep their first two images.
    for count in (3, 20):
        references: list[Any] = []
        for turn in range(len(analysis.rounds)):
            for place in places:
                for image in images(count, place, references):
                    analysis.look(image, turn)
        del image
        assert not [one for one in references if one() is not None]
        sizes.append(kept_bytes(analysis))
    assert sizes[0] > 0 or name == "entropy"
    assert sizes[0] == sizes[1]


def test_the_entropy_probe_keeps_two_numbers_an_image() -> None:
    probe = EntropyProbe()
    for _ in range(10):
        probe.add(torch.rand(4, 4), torch.zeros(4, 4, dtype=torch.uint8), torch.eye(4, dtype=torch.uint8))
    assert len(probe.correct) == len(probe.incorrect) == 10
