"""Similarity of class means across domains, and the sample that t-SNE embeds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from analysis_fakes import make, pixels, seen

from udabench.analysis.tsne import Reservoir


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_similarity_by_hand() -> None:
    analysis = make("similarity")
    analysis.look(pixels([[1, 0, 0], [0, 0, 9]], [0, 1], "source"), 0)
    analysis.look(pixels([[3, 0, 0], [5, 5, 5]], [0, 255], "source"), 0)
    # The target's mean of class a is (3, 4, 0) / 2; of b there is none; c is nowhere in the source.
    analysis.look(pixels([[3, 0, 0], [0, 4, 0], [0, 0, 2]], [0, 0, 2], "target"), 0)
    table = analysis.table().set_index("class")
    assert table["similarity"].tolist() == pytest.approx([0.6, math.nan, math.nan, 0.6], nan_ok=True)
    assert table["to c"].tolist()[:2] == pytest.approx([0, 1])
    assert math.isnan(table["to b"]["a"])


def test_iou_is_of_the_target_alone() -> None:
    analysis = make("similarity")
    # The features are the logits: claimed are a, b, b; true are a, a, b.
    analysis.look(pixels([[9, 0, 0], [0, 9, 0], [0, 9, 0]], [0, 0, 1], "target"), 0)
    analysis.look(pixels([[9, 0, 0]], [2], "source"), 0)
    assert analysis.table()["iou"].tolist() == pytest.approx([0.5, 0.5, math.nan, 0.5], nan_ok=True)


def test_reservoir_keeps_all_of_few_and_so_many_of_more() -> None:
    sample = Reservoir(3, 4, rng())
    for image in range(5):
        label = torch.tensor([[0, 0, 1, 255]]) if image == 0 else torch.tensor([[0, 0, 0, 255]])
        sample.add(torch.stack([label.double(), torch.full((1, 4), float(image))]).float(), label)
    rows, labels = sample.rows()
    assert Counter(labels.tolist()) == {0: 4, 1: 1}
    assert rows[:, 0].tolist() == labels.tolist()  # each pixel's feature belongs to its class


def test_reservoir_is_uniform_whatever_the_order() -> None:
    kept = np.zeros(12)
    for seed in range(600):
        sample = Reservoir(1, 2, rng(seed))
        for start, stop in ((0, 1), (1, 4), (4, 12)):
            numbers = torch.arange(start, stop).float().view(1, 1, -1)
            sample.add(numbers, torch.zeros(1, stop - start, dtype=torch.int64))
        kept[sample.rows()[0].flatten().long().numpy()] += 1
    # 100 each are expected, with a standard deviation of 9.
    assert kept.sum() == 1200
    assert kept.min() > 60
    assert kept.max() < 140


def test_tsne_repeats_itself_and_keeps_far_groups_apart() -> None:
    def embedded() -> np.ndarray:
        analysis = make("tsne", 2, per_class=8)
        noise = rng()
        for place, shift in (("source", 0.0), ("target", 50.0)):
            features = torch.randn(3, 4, 4, generator=noise) + shift
            analysis.look(seen(features, torch.tensor([[0, 0, 1, 1]] * 4), place), 0)  # type: ignore[arg-type]
        table = analysis.table()
        assert table.groupby(["domain", "class"]).size().tolist() == [8, 8, 8, 8]
        assert analysis.notes()["divergence (KL) of the embedding"] >= 0
        return table[["x", "y"]].to_numpy()

    first = embedded()
    np.testing.assert_array_equal(first, embedded())
    source, target = first[:16], first[16:]
    between = np.linalg.norm(source[:, None] - target[None], axis=-1)
    within = np.linalg.norm(source[:, None] - source[None], axis=-1)
    assert between.min() > 0.5 * within.max()


def test_too_few_pixels_to_embed() -> None:
    analysis = make("tsne")
    assert analysis.table().empty
    analysis.look(pixels([[1.0, 2.0]], [0], "source"), 0)
    assert len(analysis.table()) == 1
