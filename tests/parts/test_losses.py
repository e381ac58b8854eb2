"""Cross entropy of whatever a network returns, against numbers worked out by hand."""

from math import log

import pytest
import torch

from udabench.network import Head, Output
from udabench.parts.losses import cross_entropy, segmentation_loss, take

EVEN = torch.zeros(1, 2, 2, 2)
"""Logits under which every pixel costs log 2."""


def test_valid_divides_by_labelled_pixels_and_all_by_all():
    label = torch.tensor([[[0, 1], [255, 255]]])
    assert cross_entropy(EVEN, label).item() == pytest.approx(log(2))
    assert cross_entropy(EVEN, label, reduction="all").item() == pytest.approx(log(2) / 2)


def test_weights_scale_each_pixel():
    label = torch.tensor([[[0, 1], [1, 255]]])
    weight = torch.tensor([[[1.0, 0.5], [0.0, 7.0]]])
    assert cross_entropy(EVEN, label, weight).item() == pytest.approx(1.5 * log(2) / 3)


def test_nothing_labelled_costs_nothing():
    label = torch.full((1, 2, 2), 255)
    assert cross_entropy(EVEN, label).item() == 0


def test_logits_are_upsampled_bilinearly_before_the_loss():
    logits = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]])
    label = torch.zeros(1, 1, 4, dtype=torch.int64)
    # Corners not aligned: 0, 1, 3, 4.
    expected = sum(log(1 + torch.exp(torch.tensor(-x)).item()) for x in (0.0, 1.0, 3.0, 4.0)) / 4
    assert cross_entropy(logits, label).item() == pytest.approx(expected, rel=1e-5)


def test_heads_see_their_box_and_carry_their_weight():
    sure = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    label[:, 2:, 2:] = 1
    output = Output(torch.zeros(1, 2, 4, 4), (), (Head(sure.expand(1, 2, 2, 2), (2, 2, 2, 2), 0.1),), weight=0.9)
    expected = 0.9 * log(2) + 0.1 * log(1 + torch.exp(torch.tensor(2.0)).item())
    assert segmentation_loss(output, label).item() == pytest.approx(expected, rel=1e-5)


def test_take_cuts_a_joint_batch():
    logits = torch.arange(4.0).view(4, 1, 1, 1)
    output = Output(logits, (logits * 2,), (Head(logits * 3),))
    second = take(output, 1, 3)
    assert second.logits.flatten().tolist() == [1, 2]
    assert second.features[0].flatten().tolist() == [2, 4]
    assert second.heads[0].logits.flatten().tolist() == [3, 6]
