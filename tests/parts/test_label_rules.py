"""The rules of pseudo-labels against the plain ones in NumPy, with sorted lists, and on values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from udabench.labels import IGNORE
from udabench.parts.label_rules import PortionRule, QuantileRule, SoftPortionRule, TopRule
from udabench.parts.thresholds import ClassConfidences

CLASSES = 5


def predictions(seed, images=3, size=(9, 11)):
    """Probabilities of a few images; class 4 is the most probable nowhere."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(images, CLASSES, *size)) * 2 + np.array([1.0, 0.5, 0, -0.5, -60]).reshape(1, -1, 1, 1)
    shares = np.exp(scores)
    return torch.from_numpy(shares / shares.sum(1, keepdims=True)).float()


def thresholds(rule, probability, **options):
    confidences = ClassConfidences(probability.shape[1], **options)
    step = slice(None, None, rule.subsample)
    for image in probability:
        confidence, label = image.max(0)
        confidences.add(label[step, step], confidence[step, step])
    return rule.thresholds(confidences)


def lists(probability, step=1):
    """The confidences of each predicted class, the most certain first."""
    confidence, label = (t[:, ::step, ::step].numpy() for t in probability.max(1))
    return [np.sort(confidence[label == c])[::-1] for c in range(probability.shape[1])]


# CBST


@pytest.mark.parametrize("portion", [0.001, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("subsample", [1, 2])
def test_portion_is_that_of_the_sorted_list(portion, subsample):
    probability = predictions(0)
    rule = PortionRule(portion, subsample)
    found = thresholds(rule, probability)
    expected = np.ones(CLASSES, np.float32)
    for c, values in enumerate(lists(probability, subsample)):
        rank = math.floor(len(values) * portion)
        if rank:
            expected[c] = values[rank - 1]
    assert np.array_equal(found.numpy(), expected)
    assert found[4] == 1
    ratio = probability.numpy() / expected.reshape(1, -1, 1, 1)
    label = np.where(ratio.max(1) < 1, IGNORE, ratio.argmax(1))
    assert np.array_equal(rule.labels(probability, found).numpy(), label)


def test_portion_keeps_its_share_of_every_class_and_prefers_rare_ones():
    """0.6 / 0.8 < 0.3 / 0.35 < 1: unknown. 0.5 / 0.8 < 0.4 / 0.35: the less probable class is told. 0.8: kept."""
    pixels = torch.tensor([[0.6, 0.3], [0.5, 0.4], [0.8, 0.2]]).T[None, :, None]
    assert PortionRule(0.2).labels(pixels, torch.tensor([0.8, 0.35])).tolist() == [[[IGNORE, 1, 0]]]
    even = torch.linspace(0.5, 1, 100).view(1, 1, 10, 10)
    probability = torch.cat([even, 1 - even], 1)
    rule = PortionRule(0.2, subsample=1)
    kept = rule.labels(probability, thresholds(rule, probability)) != IGNORE
    assert kept.sum() == 20


def test_a_class_of_few_pixels_keeps_none():
    """floor(0.2 * 4) = 0: its threshold is 1."""
    confidences = ClassConfidences(2)
    confidences.add(torch.zeros(4, dtype=torch.long), torch.tensor([0.6, 0.7, 0.8, 0.9]))
    assert PortionRule(0.2).thresholds(confidences).tolist() == [1, 1]
    confidences.add(torch.zeros(1, dtype=torch.long), torch.tensor([0.65]))
    assert PortionRule(0.2).thresholds(confidences).tolist() == pytest.approx([0.9, 1])


def test_portion_of_a_histogram_lies_a_bin_below():
    probability, rule = predictions(1, size=(40, 50)), PortionRule(0.2, 1)
    exact, binned = thresholds(rule, probability), thresholds(rule, probability, exact=0)
    assert ((exact - binned)[:4] >= 0).all()
    assert ((exact - binned)[:4] <= 2**-16 + 1e-7).all()
    assert binned[4] == 1


# CRST's label entropy


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.5])
def test_soft_labels_and_their_choice_are_the_codes(alpha):
    probability = predictions(2)
    rule = SoftPortionRule(0.3, 1, alpha)
    limits = thresholds(rule, probability)
    p, thr = probability.double().numpy(), limits.double().numpy().reshape(1, -1, 1, 1)
    soft = (p / thr) ** (1 / alpha)
    clear = abs(soft.sum(1) - 1) > 1e-5
    soft /= soft.sum(1, keepdims=True)
    regularised = (-soft * np.log(p + 1e-32) + alpha * soft * np.log(soft + 1e-32)).sum(1)
    selected = regularised < (-soft * np.log(thr + 1e-32)).sum(1)
    assert np.abs(rule.soft(probability, limits).double().numpy() - soft).max() < 1e-5
    label = np.where(selected, soft.argmax(1), IGNORE)
    assert np.array_equal(rule.labels(probability, limits).numpy()[clear], label[clear])
    assert clear.mean() > 0.97
    assert 0.1 < selected.mean() < 0.9


def test_soft_labels_stay_finite_where_powers_overflow():
    probability = torch.tensor([0.9, 0.1, 0.0]).view(1, 3, 1, 1)
    rule = SoftPortionRule(0.2, alpha=0.001)
    limits = torch.tensor([0.3, 0.5, 1.0])
    assert rule.soft(probability, limits).flatten().tolist() == [1, 0, 0]
    assert rule.labels(probability, limits).item() == 0


# DASS


@pytest.mark.parametrize("class_share", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("image_share", [0.0, 0.1])
def test_top_is_the_union_of_both_lists(class_share, image_share):
    probability = predictions(3)
    rule = TopRule(class_share, image_share, subsample=2)
    found = thresholds(rule, probability).numpy()
    sorted_lists = lists(probability, 2)
    for c in range(4):
        rank = int(len(sorted_lists[c]) * class_share)
        # Rank 0: the list from its end, and so the whole class.
        assert found[c] == sorted_lists[c][rank - 1]
    assert found[4] == np.inf
    labels = rule.labels(probability, torch.from_numpy(found)).numpy()
    for image, label in zip(probability.numpy(), labels, strict=True):
        kept = (image >= found.reshape(-1, 1, 1)).any(0)
        order = np.argsort(-image.max(0).ravel())
        kept.ravel()[order[: int(image_share * kept.size)]] = True
        assert np.array_equal(label, np.where(kept, image.argmax(0), IGNORE))


def test_any_class_lets_a_pixel_pass_and_the_most_probable_one_is_told():
    """0.3 reaches class 1's threshold, so the pixel passes, and is told to be of class 0."""
    pixel = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1)
    assert TopRule(image_share=0).labels(pixel, torch.tensor([0.9, 0.3, 0.9])).item() == 0
    assert TopRule(image_share=0).labels(pixel, torch.tensor([0.9, 0.31, 0.9])).item() == IGNORE


def test_of_an_even_image_all_equals_are_kept():
    probability = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1).expand(1, 2, 10, 10)
    assert (TopRule().labels(probability, torch.ones(2)) == 0).all()


# BDL, SAM, FDA


def test_quantile_drops_what_its_most_probable_class_does_not_reach():
    pixels = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]).T[None, :, None]
    assert QuantileRule(0.5).labels(pixels, torch.tensor([0.7, 0.7])).tolist() == [[[0, IGNORE, 1]]]
    # round(0.5 * 2) = 1, the second of the ascending list; of one, the one.
    assert thresholds(QuantileRule(0.5), pixels).tolist() == pytest.approx([0.9, 0.7])
    assert thresholds(QuantileRule(0.5, 0.8), pixels).tolist() == pytest.approx([0.8, 0.7])
