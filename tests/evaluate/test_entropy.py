"""The entropy probe."""

from __future__ import annotations

import math

import pytest
import torch

from udabench.evaluate.entropy import EntropyProbe


def test_mean_in_an_image_then_over_images() -> None:
    probe = EntropyProbe()
    # Image 1: right pixels .1 and .3, wrong 1.0; the unknown one (9.0) counts for neither.
    probe.add(
        torch.tensor([[0.1, 0.3], [1.0, 9.0]]),
        torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8),
        torch.tensor([[0, 1], [0, 255]], dtype=torch.uint8),
    )
    # Image 2: one right pixel of .8, no wrong one.
    probe.add(torch.tensor([[0.8]]), torch.zeros(1, 1, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.uint8))
    found = probe.result()
    assert found.correct == pytest.approx((0.2 + 0.8) / 2)  # over pixels it would be 0.4
    assert found.incorrect == pytest.approx(1.0)
    assert (found.images_correct, found.images_incorrect) == (2, 1)


def test_empty_group() -> None:
    found = EntropyProbe().result()
    assert math.isnan(found.correct)
    assert math.isnan(found.incorrect)
