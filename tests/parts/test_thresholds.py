"""Thresholds by class against the plain rule: sort each class, take one place."""

import numpy as np
import pytest
import torch

from udabench.labels import IGNORE
from udabench.parts.thresholds import ClassConfidences, drop_unsure, quantile_thresholds

CLASSES = 7


def oracle(label, confidence, share, cap):
    """The rule as the code of BDL and FDA has it, in NumPy, with the place that overflows taken back."""
    thresholds = np.zeros(CLASSES, np.float32)
    for index in range(CLASSES):
        values = np.sort(confidence[label == index])
        if len(values):
            place = int(np.round(np.float64(len(values)) * share))
            thresholds[index] = min(values[min(place, len(values) - 1)], np.float32(cap))
    return thresholds


def pixels(seed, count=500, levels=None):
    """Predictions; class 5 has one pixel, class 6 none. ``levels``: so many distinct confidences, hence ties."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, count)
    label[0] = 5
    confidence = rng.beta(4, 1, count).astype(np.float32)
    if levels is not None:
        confidence = np.round(confidence * levels).astype(np.float32) / np.float32(levels)
    return label, confidence


def gathered(label, confidence, pieces=1, **options):
    confidences = ClassConfidences(CLASSES, **options)
    for some in np.array_split(np.arange(len(label)), pieces):
        confidences.add(torch.from_numpy(label[some]), torch.from_numpy(confidence[some]))
    return confidences


@pytest.mark.parametrize("levels", [None, 10, 1])
@pytest.mark.parametrize(("share", "cap"), [(0.66, 0.9), (0.5, 0.9), (0.0, 1.0), (1.0, 1.0)])
def test_exact_up_to_the_limit(levels, share, cap):
    label, confidence = pixels(1, levels=levels)
    for pieces in (1, 13):
        confidences = gathered(label, confidence, pieces)
        assert confidences.exact
        assert confidences.counts.tolist() == np.bincount(label, minlength=CLASSES).tolist()
        found = quantile_thresholds(confidences, share, cap).numpy()
        assert np.array_equal(found, oracle(label, confidence, share, cap))


@pytest.mark.parametrize("levels", [None, 10, 1])
@pytest.mark.parametrize("bins", [2**16, 100])
def test_histogram_lies_within_a_bin_below(levels, bins):
    label, confidence = pixels(2, count=20_000, levels=levels)
    confidences = gathered(label, confidence, pieces=9, exact=5000, bins=bins)
    assert not confidences.exact
    for share in (0.5, 0.66):
        found = quantile_thresholds(confidences, share).numpy()
        exact = oracle(label, confidence, share, 1.0)
        assert (found <= exact).all()
        assert (exact - found <= 1 / bins + 1e-7).all()


def test_the_top_third_is_kept():
    """FDA's code keeps the top 34 %, not 66 %: of 100 distinct confidences the places 66 to 99."""
    label = np.zeros(100, np.int64)
    confidence = np.random.default_rng(0).permutation(100).astype(np.float32) / 128
    limits = quantile_thresholds(gathered(label, confidence), 0.66, 0.9)
    assert limits[0] == 66 / 128
    kept = drop_unsure(torch.from_numpy(label), torch.from_numpy(confidence), limits) != IGNORE
    assert kept.sum() == 34


@pytest.mark.parametrize(("count", "place"), [(1, 0), (2, 1), (3, 2), (5, 2), (6, 3), (7, 4)])
def test_places_round_half_to_even_and_do_not_overflow(count, place):
    """0.5 n: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 3.5 -> 4."""
    confidence = np.arange(1, count + 1, dtype=np.float32) / 8
    label = np.zeros(count, np.int64)
    assert quantile_thresholds(gathered(label, confidence), 0.5)[0] == confidence[place]


def test_one_pixel_keeps_itself():
    # round(0.66 * 1) = 1 lies behind the only value.
    label, confidence = np.array([5]), np.array([0.4], np.float32)
    limits = quantile_thresholds(gathered(label, confidence), 0.66, 0.9)
    assert limits.tolist() == pytest.approx([0, 0, 0, 0, 0, 0.4, 0])
    assert drop_unsure(torch.tensor([5]), torch.tensor([0.4]), limits).tolist() == [5]


def test_cap_and_equal_confidences_are_kept():
    limits = quantile_thresholds(gathered(np.zeros(10, np.int64), np.full(10, 0.95, np.float32)), 0.66, 0.9)
    assert limits[0] == np.float32(0.9)
    label = torch.tensor([[0, 0, 0, 3, IGNORE]])
    confidence = torch.tensor([[0.9, 0.95, 0.89, 0.0, 1.0]])
    # A class that was never predicted has threshold 0; 255 stays.
    assert drop_unsure(label, confidence, limits).tolist() == [[0, 0, IGNORE, 3, IGNORE]]


def test_unknown_pixels_do_not_count():
    label, confidence = pixels(3)
    label[100:] = IGNORE
    confidences = gathered(label, confidence)
    assert confidences.counts.sum() == 100
    found = quantile_thresholds(confidences, 0.66, 0.9).numpy()
    assert np.array_equal(found, oracle(label[:100], confidence[:100], 0.66, 0.9))


@pytest.mark.parametrize("options", [{}, {"exact": 0}])
def test_nothing_was_predicted(options):
    confidences = gathered(np.full(3, IGNORE), np.ones(3, np.float32), **options)
    assert quantile_thresholds(confidences, 0.66).tolist() == [0] * CLASSES


def test_memory_is_bounded():
    """Behind the limit no value is kept: what is held does not grow with the pixels."""
    confidences = ClassConfidences(3, exact=10, bins=8)
    for _ in range(20):
        confidences.add(torch.zeros(100, dtype=torch.long), torch.rand(100))
    held = [value for value in vars(confidences).values() if isinstance(value, torch.Tensor)]
    assert confidences._values is None
    assert sum(value.numel() for value in held) == 3 + 3 * 8
    assert confidences.counts.tolist() == [2000, 0, 0]


def test_any_place_can_be_asked_for():
    """What a rule with another place needs (CBST: descending rank p n of n)."""
    label, confidence = pixels(4)
    confidences = gathered(label, confidence)
    kept = (confidences.counts.double() * 0.2).floor().long()
    found = confidences.at(confidences.counts - kept)
    for index in range(5):
        descending = np.sort(confidence[label == index])[::-1]
        assert found[index] == descending[int(0.2 * len(descending)) - 1]
