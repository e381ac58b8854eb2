"""CCD and PDD, by hand and against a dense computation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from analysis_fakes import make, pixels, seen

from udabench.analysis import means
from udabench.analysis.base import Seen

Array = npt.NDArray[np.float64]


def values(analysis: Any, images: list[Seen], column: str) -> list[float]:
    """By class, then the overall row; both rounds over the same images."""
    for turn in range(2):
        for image in images:
            analysis.look(image, turn)
    found: list[float] = analysis.table()[column].tolist()
    return found


TWO = ([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0], [5.0, -1.0], [100.0, 100.0]], [0, 0, 1, 1, 255])
"""Means (1, 0) and (5, 0), every pixel 1 away from its own; the means 4 apart. The unknown pixel is no part of it."""


def test_ccd_by_hand() -> None:
    found = values(make("ccd"), [pixels(*TWO)], "ccd")
    assert found[:2] == pytest.approx([1 / 16, 1 / 16])
    assert math.isnan(found[2])  # class c does not occur
    assert found[3] == pytest.approx(1 / 16)


def test_literal_divisor_counts_absent_classes_too() -> None:
    assert values(make("ccd", divisor="literal"), [pixels(*TWO)], "ccd")[:2] == pytest.approx([1 / 32, 1 / 32])


def test_ccd_of_three_classes_by_hand() -> None:
    # Class a: mean (1, 0), spread 1. Others, a pixel each: (1, 2), 4 away squared, and (4, 0), 9; they are 13 apart.
    found = values(make("ccd"), [pixels([[0, 0], [2, 0], [1, 2], [4, 0]], [0, 0, 1, 2])], "ccd")
    assert found == pytest.approx([(1 / 4 + 1 / 9) / 2, 0, 0, (1 / 4 + 1 / 9) / 6])


def test_pdd_by_hand() -> None:
    # Class a: (1, 0) and (0, 1), mean (.5, .5): cosine .7071 each; class b: (3, 4), cosines .6 and .8 to them.
    found = values(make("pdd"), [pixels([[1, 0], [0, 1], [3, 4]], [0, 0, 1])], "pdd")
    assert found[0] == pytest.approx(1 - (0.5**0.5 / 0.6 + 0.5**0.5 / 0.8) / 2)
    assert found[1] == pytest.approx(1 - 1 / (0.7 * 2**0.5))  # (3, 4) . (1, 1) / (5 sqrt 2)
    assert math.isnan(found[2])


def test_pdd_takes_the_positive_part_and_says_so() -> None:
    plain, negative = make("pdd"), make("pdd")
    expected = values(plain, [pixels([[1, 0], [0, 1], [3, 4]], [0, 0, 1])], "pdd")
    found = values(negative, [pixels([[1, -7], [-2, 1], [3, 4]], [0, 0, 1])], "pdd")
    assert found == pytest.approx(expected, nan_ok=True)
    assert plain.notes()["pdd features"] == "as they are"
    assert "ReLU" in negative.notes()["pdd features"]


def test_pixels_without_a_ratio_are_left_out_and_counted() -> None:
    # (-1, -1) has no positive feature; (0, 0, 1) is at right angles to the mean of class b.
    points = [[1.0, 1, 0], [-1, -1, 0], [0, 0, 1], [3, 4, 0]]
    analysis = make("pdd")
    found = values(analysis, [pixels(points, [0, 0, 0, 1])], "pdd")
    own = 2 / (2**0.5 * 3**0.5)  # of (1, 1, 0) and the mean (1, 1, 1) / 3
    assert found[0] == pytest.approx(1 - own / (7 / (5 * 2**0.5)))
    assert analysis.notes()["pixels without a ratio"] == 2


def test_a_single_class_has_no_value() -> None:
    for name in ("ccd", "pdd"):
        assert all(map(math.isnan, values(make(name), [pixels([[1, 2], [2, 1]], [0, 0])], name)))


def dense(features: Array, label: npt.NDArray[np.int64], classes: int) -> tuple[list[float], list[float]]:
    """Eq 14 and 15 as they are printed, over all pixels at once; absent classes left out."""
    present = [c for c in range(classes) if (label == c).any()]
    mu = {c: features[label == c].mean(0) for c in present}
    positive = np.maximum(features, 0)
    nu = {c: positive[label == c].mean(0) for c in present}

    def cos(x: Array, y: Array) -> Any:
        return (x @ y) / np.sqrt((x**2).sum(-1) * (y**2).sum())

    ccd, pdd = [], []
    for i in range(classes):
        others = [j for j in present if j != i]
        if i not in present:
            ccd.append(math.nan)
            pdd.append(math.nan)
            continue
        inside = ((features[label == i] - mu[i]) ** 2).sum(1).mean()
        ccd.append(sum(inside / ((mu[i] - mu[j]) ** 2).sum() for j in others) / len(others))
        x = positive[label == i]
        pdd.append(1 - (cos(x, nu[i]) / sum(cos(x, nu[j]) for j in others)).mean())
    return ccd, pdd


def random_images(count: int, width: int = 6) -> Iterator[Seen]:
    """Features with 4 classes of which d never occurs, and unknown pixels."""
    rng = torch.Generator().manual_seed(0)
    centers = torch.randn(4, width, generator=rng) + 1.5
    for _ in range(count):
        label = torch.randint(0, 3, (5, 7), generator=rng)
        noise = torch.randn(5, 7, width, generator=rng)
        features = (centers[label] + 0.7 * noise).permute(2, 0, 1)
        unknown = torch.rand(5, 7, generator=rng) < 0.1
        yield seen(features, torch.where(unknown, 255, label))


def test_streaming_equals_the_dense_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    images = list(random_images(9))
    features = np.concatenate([image.features.flatten(1).T.numpy() for image in images]).astype(np.float64)
    label = np.concatenate([image.grid.flatten().numpy() for image in images])
    ccd, pdd = dense(features, label, 4)
    for numbers in (means.NUMBERS, 20):  # in one part, and 3 pixels at a time
        monkeypatch.setattr(means, "NUMBERS", numbers)
        assert values(make("ccd", 4), images, "ccd")[:4] == pytest.approx(ccd, rel=1e-12, nan_ok=True)
        assert values(make("pdd", 4), images, "pdd")[:4] == pytest.approx(pdd, rel=1e-12, nan_ok=True)


def test_large_offsets_do_not_cost_digits() -> None:
    # Means of 1e4 with a spread of 1: E[x^2] - E[x]^2 in float32 would have lost it.
    near, far = 1e4, 2e4
    found = values(make("ccd"), [pixels([[near - 1], [near + 1], [far - 1], [far + 1]], [0, 0, 1, 1])], "ccd")
    assert found[0] == pytest.approx(1 / 1e8, rel=1e-9)


def test_labels_come_down_to_the_grid_by_nearest() -> None:
    label = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [255, 0, 2, 0], [0, 0, 0, 0]])
    image = seen(torch.zeros(1, 2, 2), label)
    assert image.grid.tolist() == [[0, 1], [255, 2]]
