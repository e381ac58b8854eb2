"""SAM's self-attention loss on numbers worked out by hand."""

from math import log, sqrt

import pytest
import torch

from udabench.parts.attention import SelfAttention
from udabench.parts.self_attention_loss import self_attention_loss

Z = [[1.0, -2.0], [0.5, 3.0], [0.0, 1.0]]
"""Three classes at two pixels, and what attention made of them."""
ATTENDED = [[0.5, -4.0], [-1.0, 1.0], [0.25, 2.0]]


def _map(rows):
    return torch.tensor(rows).view(1, len(rows), 1, -1).requires_grad_()


def test_eq_8_has_the_sign_of_the_attended_whatever_the_logits():
    logits, attended = _map(Z), _map(ATTENDED)
    loss = self_attention_loss(logits, logits + attended)
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 4 + 1 + 1 + 0.25 + 2) / 6)
    signs = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    torch.testing.assert_close(logits.grad.flatten(2)[0], signs / 6)
    assert attended.grad is None


def test_eq_8_squared():
    logits, attended = _map(Z), _map(ATTENDED)
    loss = self_attention_loss(logits, logits + attended, "l2")
    loss.backward()
    assert loss.item() == pytest.approx((0.25 + 16 + 1 + 1 + 0.0625 + 4) / 6)
    torch.testing.assert_close(logits.grad, -2 / 6 * attended)


def test_eq_9_draws_towards_the_attended():
    logits = _map(Z)
    loss = self_attention_loss(logits, _map(ATTENDED))
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 2 + 1.5 + 2 + 0.25 + 1) / 6)
    signs = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    torch.testing.assert_close(logits.grad.flatten(2)[0], signs / 6)
    logits.grad = None
    self_attention_loss(logits, logits.clone()).backward()
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize(("distance", "factor"), [("l1", 3), ("l2", 3), ("kl", 3), ("cos", 1)])
def test_a_sum_over_classes_is_as_many_times_the_mean(distance, factor):
    mean, pixel = (self_attention_loss(_map(Z), _map(ATTENDED), distance, reduction=r) for r in ("mean", "pixel"))
    assert pixel.item() == pytest.approx(factor * mean.item())


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_divergence_is_that_from_the_attended_distribution(space):
    """(1/2, 1/2) from (3/4, 1/4); its gradient is the difference of the two."""
    logits = _map([[0.0], [0.0]])
    loss = self_attention_loss(logits, _map([[log(3)], [0.0]]), "kl", space, "pixel")
    loss.backward()
    assert loss.item() == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5))
    assert logits.grad.flatten().tolist() == pytest.approx([-0.25, 0.25])


def test_cosine_of_each_pixel():
    """45 degrees, and opposite."""
    loss = self_attention_loss(_map([[1.0, 1.0], [0.0, 1.0]]), _map([[2.0, -3.0], [2.0, -3.0]]), "cos")
    assert loss.item() == pytest.approx((1 - 1 / sqrt(2) + 2) / 2)


@pytest.mark.parametrize(
    ("distance", "expected"), [("l1", 0.5), ("l2", 2 / 16), ("cos", 1 - 0.5 / (sqrt(0.5) * sqrt(0.625)))]
)
def test_probabilities_are_compared_after_the_softmax(distance, expected):
    """(1/2, 1/2) and (3/4, 1/4)."""
    loss = self_attention_loss(_map([[7.0], [7.0]]), _map([[log(3)], [0.0]]), distance, "probabilities", "pixel")
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", ["l1", "l2", "kl", "cos"])
@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_attended_to_nothing_has_a_finite_gradient(distance, space):
    """A position without a query has Z' = 0."""
    logits = _map([[0.0, 1.0], [0.0, 2.0]])
    self_attention_loss(logits, torch.zeros(1, 2, 1, 2), distance, space).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("distance", ["l1", "l2", "kl", "cos"])
def test_half_precision_is_compared_in_single(distance):
    logits, attended = _map(Z).bfloat16(), _map(ATTENDED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = self_attention_loss(logits, attended, distance)
    assert loss.dtype == torch.float32
    expected = self_attention_loss(logits.double(), attended.double(), distance)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("skip", [True, False])
def test_the_module_itself_learns_nothing(skip):
    torch.manual_seed(0)
    attention = SelfAttention(3, 4)
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    self_attention_loss(logits, attention(logits, skip=skip)).backward()
    assert all(parameter.grad is None for parameter in attention.parameters())
    if skip:
        torch.testing.assert_close(logits.grad, -attention(logits).sign() / logits.numel())
