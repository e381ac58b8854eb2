"""CRST's model regularisers against torch's own divergences in double precision, and by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from udabench.parts.confidence import confidence_penalty, negative_entropy, uniform_divergence


def test_divergence_and_entropy_are_torchs():
    logs = torch.randn(2, 5, 3, 4, dtype=torch.float64).log_softmax(1)
    uniform = torch.full_like(logs, 1 / 5)
    divergence = F.kl_div(logs, uniform, reduction="none").sum(1)
    assert torch.allclose(uniform_divergence(logs), divergence + math.log(5))
    assert torch.allclose(negative_entropy(logs), -torch.special.entr(logs.exp()).sum(1))


def test_both_are_smallest_where_all_classes_are_equal():
    even, sure = torch.zeros(1, 4, 1, 1), torch.tensor([9.0, 0, 0, 0]).view(1, 4, 1, 1)
    for penalty in (uniform_divergence, negative_entropy):
        assert penalty(even.log_softmax(1)) < penalty(sure.log_softmax(1))
    assert uniform_divergence(even.log_softmax(1)).item() == pytest.approx(math.log(4))
    assert negative_entropy(even.log_softmax(1)).item() == pytest.approx(-math.log(4))


def test_only_labelled_pixels_are_kept_from_being_sure():
    """Two of four pixels are labelled; p = (0.8, 0.2) and (0.5, 0.5). MRKLD: -(log 0.8 + log 0.2) / 2 and log 2."""
    p = torch.tensor([[0.8, 0.2], [0.5, 0.5], [0.9, 0.1], [0.7, 0.3]])
    logits = p.log().T.reshape(1, 2, 2, 2).requires_grad_()
    label = torch.tensor([[[0, 1], [255, 255]]])
    kld = (-(math.log(0.8) + math.log(0.2)) / 2 + math.log(2)) / 2
    entropy = (0.8 * math.log(0.8) + 0.2 * math.log(0.2) - math.log(2)) / 2
    value = confidence_penalty(logits, label, 0.1, 0.25)
    assert value.item() == pytest.approx(0.1 * kld + 0.25 * entropy)
    value.backward()
    assert (logits.grad[..., 1, :] == 0).all()
    # Descent takes from the class that is too sure.
    assert logits.grad[0, 0, 0, 0] > 0


def test_nothing_labelled_and_no_images():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    assert confidence_penalty(logits, torch.full((1, 4, 4), 255), 1.0, 1.0) == 0
    empty = confidence_penalty(logits[:0], torch.zeros(0, 4, 4, dtype=torch.long), 1.0, 1.0)
    assert empty == 0
    empty.backward()
