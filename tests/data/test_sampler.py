from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from udabench.data.randomness import rng_at
from udabench.data.sampler import (
    Paired,
    Share,
    Uniform,
    class_chances,
    image_chances,
    rare_class_sampler,
    weighted_sampler,
)
from udabench.errors import DataError

NAMES = ("a", "b", "c")


def test_uniform_shows_every_sample_once_an_epoch_in_new_orders() -> None:
    sampler, rng = Uniform(7, key=3), rng_at(0)
    epochs = [[sampler.draw(7 * epoch + i, rng).item for i in range(7)] for epoch in range(20)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 15


def test_paired_shows_every_pair_once() -> None:
    source, target = (Paired(3, 4, key=9, target=side) for side in (False, True))
    rng = rng_at(0)
    pairs = [(source.draw(i, rng).item, target.draw(i, rng).item) for i in range(12)]
    assert sorted(pairs) == [(s, t) for s in range(3) for t in range(4)]
    again = [(source.draw(i, rng).item, target.draw(i, rng).item) for i in range(12, 24)]
    assert sorted(again) == sorted(pairs)
    assert again != pairs


def test_class_chances_by_hand() -> None:
    # f = (0.5, 0.3, 0.2, 0); T = 0.1: softmax of (5, 7, 8) over the three that occur, 0 for the fourth.
    counts = np.array([[50, 0, 20, 0], [0, 30, 0, 0]])
    e5, e7, e8 = np.exp([5.0, 7.0, 8.0])
    total = e5 + e7 + e8
    np.testing.assert_allclose(class_chances(counts, 0.1), [e5 / total, e7 / total, e8 / total, 0], rtol=1e-12)


def test_a_rarer_class_is_never_less_likely_and_temperature_sharpens() -> None:
    counts = np.array([[900, 90, 9, 1, 0]])
    for temperature in (0.01, 0.1, 1.0):
        chances = class_chances(counts, temperature)
        assert chances.sum() == pytest.approx(1)
        assert (np.diff(chances[:4]) >= 0).all()
        assert chances[4] == 0
    assert class_chances(counts, 0.01)[2:4].sum() > 0.99


def test_an_image_must_show_more_than_the_least_pixels() -> None:
    counts = np.array([[100, 10], [100, 11], [100, 0]])
    sampler = rare_class_sampler(counts, 0.01, min_pixels=10, names=NAMES)
    assert sampler.classes == (0, 1)
    assert [images.tolist() for images in sampler.images] == [[0, 1, 2], [1]]


def test_a_class_that_no_image_shows_enough_of_comes_from_those_that_have_any() -> None:
    sampler = rare_class_sampler(np.array([[100, 2], [100, 0], [0, 3]]), 0.01, min_pixels=50, names=NAMES)
    assert [images.tolist() for images in sampler.images] == [[0, 1], [0, 2]]


def test_draws_follow_the_chances() -> None:
    counts = np.array([[60, 0, 0], [0, 40, 0], [60, 40, 0]])
    sampler = rare_class_sampler(counts, 0.5, min_pixels=0, names=NAMES)
    draws = [sampler.draw(i, rng_at("draw", i)) for i in range(4000)]
    chances = class_chances(counts, 0.5)
    wanted = Counter(draw.wanted for draw in draws)
    for c in (0, 1):
        assert wanted[c] / 4000 == pytest.approx(chances[c], abs=0.03)
    assert all(draw.item in ((0, 2) if draw.wanted == 0 else (1, 2)) for draw in draws)


def test_empty_statistics_are_an_error_at_once() -> None:
    with pytest.raises(DataError, match="class statistics of 3 images are empty"):
        rare_class_sampler(np.zeros((3, 19), np.int64), 0.01, 3000, NAMES)


def test_weights_of_images_by_hand() -> None:
    # Class 0 in three images, 1 in two, 2 in one, 3 in none: 1/3, 1/3 + 1/2, 1/3 + 1/2 + 1; their sum is 3 classes.
    counts = np.array([[5, 0, 0, 0], [9, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(image_chances(counts), [1 / 9, 5 / 18, 11 / 18, 0], rtol=1e-12)


def test_weighted_draws_follow_the_weights() -> None:
    counts = np.array([[5, 0, 0, 0], [9, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]])
    sampler = weighted_sampler(counts, ("a", "b", "c", "d"))
    draws = [sampler.draw(i, rng_at("weighted", i)) for i in range(6000)]
    found = Counter(draw.item for draw in draws)
    for item, chance in enumerate((1 / 9, 5 / 18, 0, 11 / 18)):
        assert found[item] / 6000 == pytest.approx(chance, abs=0.02)
    assert {draw.wanted for draw in draws} == {None}
    with pytest.raises(DataError, match=r"statistics of 2 images are empty.*Weighted sampling cannot work"):
        weighted_sampler(np.zeros((2, 3), np.int64), ("a", "b"))


def test_a_share_is_some_samples_each_once_an_epoch() -> None:
    sampler = Share(20, Uniform(6, key=1), key=2)
    epochs = [[sampler.draw(6 * epoch + i, rng_at(0)).item for i in range(6)] for epoch in range(5)]
    part = set(epochs[0])
    assert len(part) == 6
    assert all(set(epoch) == part for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    parts = [{Share(20, Uniform(6, 1), key).draw(i, rng_at(0)).item for i in range(6)} for key in range(30)]
    assert set().union(*parts) == set(range(20))
