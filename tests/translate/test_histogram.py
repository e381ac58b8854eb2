"""Histogram matching, against cumulative distributions in NumPy (the definition of scikit-image)."""

import numpy as np
import pytest
import torch

from udabench.translate.draws import partners
from udabench.translate.histogram import HistogramMatching, match_histograms


def _literal(source, target):
    """One channel: each value to the target's value at the same quantile."""
    _, places, counts = np.unique(source.ravel(), return_inverse=True, return_counts=True)
    values, wanted = np.unique(target.ravel(), return_counts=True)
    matched = np.interp(np.cumsum(counts) / source.size, np.cumsum(wanted) / target.size, values)
    return matched[places].reshape(source.shape)


@pytest.mark.parametrize("levels", [7, 256, None], ids=str)
@pytest.mark.parametrize("size", [(12, 20), (9, 31)])
def test_equals_the_definition(levels, size):
    rng = np.random.default_rng(0)
    source, target = rng.random((2, 3, 12, 20)), rng.random((2, 3, *size)) ** 2
    if levels:
        source, target = (np.round(x * (levels - 1)) / (levels - 1) for x in (source, target))
    source, target = source.astype(np.float32), target.astype(np.float32)
    expected = np.stack(
        [[_literal(s, t) for s, t in zip(*pair, strict=True)] for pair in zip(source, target, strict=True)]
    )
    found = match_histograms(torch.from_numpy(source), torch.from_numpy(target))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_by_hand():
    source = torch.tensor([0.1, 0.1, 0.5, 0.9]).view(1, 1, 2, 2)
    target = torch.tensor([0.2, 0.4, 0.6, 0.8]).view(1, 1, 2, 2)
    # Half of the source is 0.1: it goes to the value that half of the target does not exceed.
    assert match_histograms(source, target).flatten().tolist() == pytest.approx([0.4, 0.4, 0.6, 0.8])
    # A quarter of the source at 0.2, and 0.4 is reached by half: a third of the way, and so on.
    three = torch.tensor([0.1, 0.5, 0.9]).view(1, 1, 1, 3)
    expected = [0.2 + 0.2 / 3, 0.4 + 0.4 / 3, 0.8]
    assert match_histograms(three, target).flatten().tolist() == pytest.approx(expected)


def test_identical_images_stay_and_flat_ones_do_not_divide_by_zero():
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(match_histograms(image, image.clone()), image)
    flat = torch.full((1, 3, 4, 4), 0.25)
    assert torch.equal(match_histograms(image[:1], flat), torch.full((1, 3, 8, 8), 0.25))


def test_images_are_spread_over_the_targets():
    rng = torch.Generator().manual_seed(2)
    source, target = torch.rand(3, 3, 6, 6, generator=rng), torch.rand(2, 3, 6, 8, generator=rng)
    found = HistogramMatching()(source, target, rng)
    torch.testing.assert_close(found, match_histograms(source, target[[0, 0, 1]]))


@pytest.mark.parametrize(("images", "others"), [(4, 4), (4, 2), (2, 4), (4, 6), (6, 2)])
def test_halves_of_a_batch_pair_as_the_whole_does(images, others):
    whole = partners(images, others, torch.device("cpu"))
    half = partners(images // 2, others // 2, torch.device("cpu"))
    assert whole.tolist() == [*half.tolist(), *(half + others // 2).tolist()]
    assert 0 <= whole.min() <= whole.max() < others
