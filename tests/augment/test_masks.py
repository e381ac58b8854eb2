"""Block masks: their share, their shape, and what a network sees of hidden pixels."""

from __future__ import annotations

import pytest
import torch

from udabench.augment.masks import block_mask, hide
from udabench.network import CAFFE, TF, TORCH, Normalization


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_three_tenths_of_the_image_stay() -> None:
    """64 images of 16 x 16 cells: 16384 draws, a standard error of 0.0036."""
    keep = block_mask(64, 512, 512, 32, 0.7, rng())
    assert keep.shape == (64, 1, 512, 512)
    assert float(keep.float().mean()) == pytest.approx(0.3, abs=0.015)


def test_a_block_stays_or_goes_as_a_whole() -> None:
    keep = block_mask(3, 64, 128, 8, 0.7, rng())
    blocks = keep.view(3, 8, 8, 16, 8).transpose(2, 3).flatten(3)
    assert bool((blocks.all(3) | ~blocks.any(3)).all())
    shares = blocks.float().mean(3).unique().tolist()
    assert shares == [0.0, 1.0]
    assert not torch.equal(keep[0], keep[1])


def test_the_draws_decide_by_being_greater() -> None:
    drawn = torch.rand(2, 1, 2, 4, generator=rng(5))
    keep = block_mask(2, 16, 32, 8, 0.4, rng(5))
    assert torch.equal(keep[:, :, ::8, ::8], drawn > 0.4)


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 1.0), (1.0, 0.0)])
def test_all_or_nothing(ratio: float, share: float) -> None:
    assert float(block_mask(2, 32, 32, 4, ratio, rng()).float().mean()) == share


@pytest.mark.parametrize(("side", "cells"), [(96, 3), (88, 3), (40, 1), (8, 1)])
def test_a_side_that_is_no_multiple_is_shared_out(side: int, cells: int) -> None:
    """round(side / 32) cells, and one where that is none: 88 / 32 = 2.75, 40 / 32 = 1.25, 8 / 32 = 0.25."""
    keep = torch.cat([block_mask(1, side, side, 32, 0.5, rng(seed)) for seed in range(40)])
    changes = (keep[:, 0, 1:, 0] != keep[:, 0, :-1, 0]).any(0).nonzero().flatten() + 1
    expected = [-(-side * cell // cells) for cell in range(1, cells)]
    assert changes.tolist() == expected


@pytest.mark.parametrize("normalization", [TORCH, CAFFE, TF], ids=lambda n: n.name)
def test_hidden_pixels_are_zero_for_the_network(normalization: Normalization) -> None:
    image = torch.rand(2, 3, 16, 16, generator=rng())
    keep = block_mask(2, 16, 16, 4, 0.7, rng(1))
    seen = normalization(hide(image, keep, normalization.mean_color))
    hidden = ~keep.expand_as(seen)
    assert float(seen[hidden].abs().max()) < 1e-4 * float(normalization(image).abs().max())
    assert torch.equal(seen[~hidden], normalization(image)[~hidden])
