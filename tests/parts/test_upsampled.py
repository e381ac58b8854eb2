"""Pixel by pixel sums over upsampled logits, against torch's own functions in float64."""

import pytest
import torch
from torch.nn import functional as F

from udabench.parts import upsampled as module
from udabench.parts.upsampled import linear_matrix, most_probable, summed_cross_entropy, upsampled

SIZES = [((5, 7), (20, 28)), ((5, 7), (13, 30)), ((9, 6), (9, 6)), ((9, 6), (4, 11)), ((1, 1), (3, 5))]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Two or three rows at a time."""
    monkeypatch.setattr(module, "_CACHED", 500)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def _logits(size, dtype=torch.float32):
    return (4 * torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(1))).to(dtype)


def _full(logits, size):
    return F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=False)


def test_the_matrix_by_hand():
    """Twice as long: centres lie at -0.25, 0.25, 0.75 and 1.25 of the old ones, held at the ends."""
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert linear_matrix(2, 4, torch.device("cpu")).tolist() == expected


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_blocks_are_the_upsampled_map(small, large):
    blocks = list(upsampled(_logits(small), large))
    assert len(blocks) > 1 or large[0] * large[1] * 12 <= 500
    joined = torch.cat([block.values for block in blocks], 2).double()
    torch.testing.assert_close(joined, _full(_logits(small), large), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_and_its_gradient(small, large, weighted):
    rng = torch.Generator().manual_seed(2)
    label = torch.randint(6, (2, *large), generator=rng)
    label[torch.rand(label.shape, generator=rng) < 0.2] = 255
    weight = torch.rand(label.shape, generator=rng) if weighted else None
    logits, oracle = _logits(small).requires_grad_(), _logits(small).double().requires_grad_()
    each = F.cross_entropy(_full(oracle, large), label, ignore_index=255, reduction="none")
    expected = (each * (1 if weight is None else weight)).sum()
    value = summed_cross_entropy(logits, label, weight)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    (3 * value).backward()
    (3 * expected).backward()
    torch.testing.assert_close(logits.grad.double(), oracle.grad, rtol=1e-4, atol=1e-5)


def test_nothing_labelled_is_zero_with_a_zero_gradient():
    logits = _logits((5, 7)).requires_grad_()
    value = summed_cross_entropy(logits, torch.full((2, 20, 28), 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().max() == 0


def test_half_precision_is_summed_in_single():
    logits = _logits((5, 7), torch.bfloat16).requires_grad_()
    label = torch.randint(6, (2, 20, 28), generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = summed_cross_entropy(logits, label)
    expected = F.cross_entropy(_full(logits, (20, 28)), label, reduction="sum")
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    value.backward()
    assert logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_most_probable(small, large):
    confidence, label = most_probable(_logits(small), large)
    expected, ids = _full(_logits(small), large).softmax(1).max(1)
    torch.testing.assert_close(confidence.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(label, ids)


def test_the_first_of_equals():
    confidence, label = most_probable(torch.zeros(1, 4, 2, 2), (4, 4))
    assert label.unique().tolist() == [0]
    assert confidence.unique().tolist() == [0.25]


def test_logits_that_are_no_number_give_valid_ids():
    confidence, label = most_probable(torch.full((1, 4, 2, 2), torch.nan), (4, 4))
    assert confidence.isnan().all()
    assert label.unique().tolist() == [3]
