"""Entropy losses against values worked out by hand, in float64."""

import math

import numpy as np
import pytest
import torch

from udabench.parts import entropy
from udabench.parts.entropy import mean_entropy, normalised_entropy, robust_entropy

# Probabilities (1/2, 1/4, 1/4): H = 1.5 ln 2. Equal ones: H = ln 3, its largest value.
SKEWED, EQUAL = 1.5 * math.log(2) / math.log(3), 1.0


@pytest.fixture
def logits():
    """1 3 1 2: the two pixels above, each shifted by a constant, as logits may be."""
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    return (probabilities.log() + torch.tensor([[7.0], [-3.0]])).T.reshape(1, 3, 1, 2)


def test_normalised_by_the_largest_value(logits):
    assert normalised_entropy(logits).flatten().tolist() == pytest.approx([SKEWED, EQUAL], abs=1e-15)
    assert mean_entropy(logits).item() == pytest.approx((SKEWED + EQUAL) / 2, abs=1e-15)


def test_robust_form(logits):
    for eta in (0.5, 1.5, 2.0):
        expected = ((SKEWED**2 + 1e-8) ** eta + (EQUAL + 1e-8) ** eta) / 2
        assert robust_entropy(logits, eta).item() == pytest.approx(expected, abs=1e-15)


def test_another_library_agrees():
    logits = torch.randn(2, 19, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    nats = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1)).entropy()
    assert torch.allclose(normalised_entropy(logits), nats / math.log(19), atol=1e-14)
    # The code of ADVENT: base 2, the sum over all divided by n h w log2(c).
    p = logits.softmax(1).numpy()
    assert mean_entropy(logits).item() == pytest.approx(-(p * np.log2(p)).sum() / (2 * 5 * 7 * np.log2(19)), abs=1e-14)


def test_padding_is_left_out(logits):
    # Twice the logits' resolution; only the second pixel is inside.
    valid = torch.tensor([[[False, False, True, True]] * 2])
    assert mean_entropy(logits, valid).item() == pytest.approx(EQUAL, abs=1e-15)
    assert robust_entropy(logits, 2.0, valid).item() == pytest.approx((1 + 1e-8) ** 2, abs=1e-15)
    assert mean_entropy(logits, torch.zeros_like(valid)).item() == 0


def test_the_mean_of_a_padded_batch_is_that_of_all_ranks(logits, monkeypatch):
    """Two ranks with 1 and 2 pixels: the average of their values is the mean over the three pixels."""
    valid = torch.tensor([[[True, False]], [[True, True]]])
    whole = mean_entropy(logits.repeat(2, 1, 1, 1), valid).item()
    monkeypatch.setattr(entropy, "per_rank", lambda count: torch.tensor(3.0) / 2)
    ranks = [mean_entropy(logits, valid[i : i + 1]).item() for i in range(2)]
    assert sum(ranks) / 2 == pytest.approx(whole, abs=1e-15) == pytest.approx((2 * SKEWED + EQUAL) / 3, abs=1e-15)


@pytest.mark.parametrize("loss", [mean_entropy, robust_entropy])
def test_certain_pixels_have_finite_gradients(loss):
    logits = torch.tensor([1e4, 0.0, -1e4]).reshape(1, 3, 1, 1).requires_grad_()
    value = loss(logits)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.isfinite().all()


def test_half_precision_is_computed_in_single():
    logits = torch.randn(1, 5, 4, 4).bfloat16()
    assert normalised_entropy(logits).dtype == torch.float32
    assert torch.equal(normalised_entropy(logits), normalised_entropy(logits.float()))


def test_uncertain_pixels_pull_harder_under_the_robust_form():
    """d/dh (h^2)^eta = 2 eta h^(2 eta - 1) grows with h, where the mean's is 1 everywhere."""
    logits = torch.tensor([[3.0, 0.0], [0.6, 0.0]], dtype=torch.float64).T.reshape(1, 2, 1, 2)

    def ratio(loss):
        leaf = logits.clone().requires_grad_()
        loss(leaf).backward()
        norms = leaf.grad.norm(dim=1).flatten()
        return (norms[1] / norms[0]).item()

    h = normalised_entropy(logits).flatten()
    assert ratio(robust_entropy) / ratio(mean_entropy) == pytest.approx(((h[1] / h[0]) ** 3).item(), rel=1e-4)
