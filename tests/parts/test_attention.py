"""Attention in blocks, by hand and against the dense form in float64."""

import subprocess
import sys
from math import sqrt

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from udabench.parts import attention as module
from udabench.parts.attention import SelfAttention, attend


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Some rows at a time, the last block a square."""
    monkeypatch.setattr(module, "_ON_CPU", 600)


def _maps(width=5, classes=3, size=(5, 9), count=2, dtype=torch.float32):
    """Queries and values; one query in each image is 0."""
    rng = torch.Generator().manual_seed(1)
    query, value = (torch.randn(count, n, *size, generator=rng) for n in (width, classes))
    query[:, :, 1, 2] = 0
    return query.to(dtype).requires_grad_(), (4 * value).to(dtype).requires_grad_()


def _dense(query, value):
    """Equations 4 to 7 as they are written."""
    rows, logits = query.flatten(2).mT, value.flatten(2).mT
    lengths = (rows @ rows.mT).diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()
    positive = (rows @ rows.mT / (lengths[:, :, None] * lengths[:, None])).relu()
    weights = positive / positive.sum(2, keepdim=True).clamp(min=1e-30)
    return (weights @ logits).mT.reshape(value.shape)


def _close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * expected.abs().max().item())


def test_four_positions_by_hand():
    """(2, 0) and (1, 1) have cosine 1 / sqrt 2; (-5, 0) is negative to both; (0, 0) has no direction."""
    query = torch.tensor([[2.0, 1.0, -5.0, 0.0], [0.0, 1.0, 0.0, 0.0]]).view(1, 2, 2, 2)
    value = torch.tensor([[10.0, 20.0, 30.0, 40.0]]).view(1, 1, 2, 2)
    c = 1 / sqrt(2)
    expected = [(10 + c * 20) / (1 + c), (c * 10 + 20) / (1 + c), 30, 0]
    assert attend(query, value).flatten().tolist() == pytest.approx(expected)


def test_rows_sum_to_one():
    query, _ = _maps()
    attended = attend(query, torch.ones(2, 1, 5, 9)).detach().clone()
    assert attended[:, :, 1, 2].tolist() == [[0], [0]]
    attended[:, :, 1, 2] = 1
    torch.testing.assert_close(attended, torch.ones_like(attended))


@pytest.mark.parametrize("values", [1, 600, 10**6])
@pytest.mark.parametrize("size", [(5, 9), (13, 4), (2, 3)])
def test_equals_the_dense_form_and_its_gradient(values, size, monkeypatch):
    monkeypatch.setattr(module, "_ON_CPU", values)
    leaves, oracles = _maps(size=size), _maps(size=size, dtype=torch.float64)
    found, expected = attend(*leaves), _dense(*oracles)
    _close(found, expected)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for leaf, oracle in zip(leaves, oracles, strict=True):
        _close(leaf.grad, oracle.grad)


def test_blocks_cover_the_upper_triangle_once():
    covered = torch.zeros(45, 45, dtype=torch.int64)
    unit = torch.zeros(2, 5, 45)
    for block in module._blocks(unit):
        covered[block.rows, block.columns] += 1
        covered[block.below, block.rows] += 1
        assert 2 * covered[block.rows, block.columns].numel() <= 600
    assert len(list(module._blocks(unit))) > 3
    assert (covered == 1).all()


def test_gradcheck():
    query, value = _maps(width=3, classes=2, size=(3, 4), dtype=torch.float64)
    with torch.no_grad():
        query[:, 0] += 1
        # At 0 itself the direction has no derivative.
        query[:, :, 1, 2] = 0.5
    assert torch.autograd.gradcheck(attend, (query, value))
    assert torch.autograd.gradcheck(lambda both: attend(both, both), (query,))


def test_a_query_of_zero_gets_a_finite_gradient_of_zero():
    query, value = _maps()
    attend(query, value).square().sum().backward()
    assert query.grad[:, :, 1, 2].abs().max() == 0
    assert value.grad[:, :, 1, 2].abs().max() == 0
    assert query.grad.isfinite().all()


def test_not_a_number_is_not_hidden():
    query, value = _maps()
    with torch.no_grad():
        query[0, 0, 0, 0] = torch.nan
    attended = attend(query, value)
    assert attended[0, :, 0, 0].isnan().all()
    assert attended[1].isfinite().all()


def test_autocast_changes_nothing_behind_the_convolution():
    query, value = _maps()
    expected = attend(query, value)
    expected.sum().backward()
    gradients = [tensor.grad.clone() for tensor in (query, value)]
    query.grad = value.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attend(query, value)
        found.sum().backward()
    assert torch.equal(found, expected)
    assert torch.equal(query.grad, gradients[0])
    assert torch.equal(value.grad, gradients[1])


def test_half_precision_is_summed_in_single():
    query, value = (tensor.detach().bfloat16().requires_grad_() for tensor in _maps())
    found = attend(query, value)
    assert found.dtype == torch.float32
    _close(found, _dense(query.double(), value.double()))
    found.sum().backward()
    assert query.grad.dtype == value.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_module_is_the_convolution_and_the_attention(skip, kernel):
    torch.manual_seed(3)
    attention, (_, logits) = SelfAttention(3, 7, kernel), _maps()
    query = F.conv2d(logits, attention.query.weight, attention.query.bias, padding=kernel // 2)
    expected = _dense(query.double(), logits.double()) + (logits if skip else 0)
    _close(attention(logits, skip=skip), expected)


def test_without_a_convolution_it_attends_to_the_logits_themselves():
    attention, (_, logits) = SelfAttention(3, width=None), _maps()
    assert not list(attention.parameters())
    assert not attention.state_dict()
    _close(attention(logits), _dense(logits.double(), logits.double()))


def test_gradients_go_where_they_are_asked_for():
    """As the engine asks: ``inputs`` are parameters; a network before the module, the module, or both."""
    torch.manual_seed(4)
    network, attention = torch.nn.Conv2d(2, 3, 1), SelfAttention(3, 7)
    image = torch.randn(1, 2, 5, 9)

    def loss():
        return attention(network(image), skip=True).square().mean()

    both = [*network.parameters(), *attention.parameters()]
    torch.autograd.backward(loss(), inputs=both)
    together = [parameter.grad.clone() for parameter in both]
    for parameters in (list(network.parameters()), list(attention.parameters())):
        for parameter in both:
            parameter.grad = None
        torch.autograd.backward(loss(), inputs=parameters)
        assert all(parameter.grad is None for parameter in both if all(parameter is not p for p in parameters))
        for parameter, expected in zip(both, together, strict=True):
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        value = loss()
    torch.autograd.backward(value, inputs=both)
    assert all(parameter.grad.abs().max() > 0 for parameter in both)


def test_a_frozen_module_gets_no_gradient():
    attention, (_, logits) = SelfAttention(3, 7).requires_grad_(False), _maps()
    attention(logits).sum().backward()
    assert all(parameter.grad is None for parameter in attention.parameters())
    with torch.no_grad():
        assert not attention(logits).requires_grad


class _Largest(TorchDispatchMode):
    """The most values of any tensor that an operation returned."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_no_square_matrix_is_made(monkeypatch):
    monkeypatch.setattr(module, "_ON_CPU", 2**16)
    query, value = _maps(size=(24, 25), count=1)
    with _Largest() as largest:
        attend(query, value).sum().backward()
    assert 0 < largest.values <= 2**16
    with _Largest() as largest:
        _dense(query, value).sum().backward()
    assert largest.values == 600**2


FULL_SIZE = """
import sys
from pathlib import Path
import torch
from udabench.parts.attention import SelfAttention, attend

def status(key):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(key))

height, width = map(int, sys.argv[1:])
torch.manual_seed(0)
logits = torch.randn(1, 19, height, width, requires_grad=True)
attention = SelfAttention(19)
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (Linux)
before = status("VmRSS")
attended = attention(logits, skip=True)
attended.square().mean().backward()
print((status("VmHWM") - before) // 1024)
rows = torch.nn.functional.normalize(attention.query(logits).double().flatten(2)[0], dim=0)
some = torch.arange(0, height * width, 997)
cosine = (rows[:, some].T @ rows).relu()
expected = (cosine / cosine.sum(1, keepdim=True)) @ logits.double().flatten(2)[0].T
found = (attended - logits).flatten(2)[0].T[some].double()
print((found - expected).abs().max().item() / expected.abs().max().item())
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(65, 129), (138, 74)])
def test_full_size_takes_less_than_a_gibibyte(size):
    """DeepLab's and FCN-8s' logits of a 1024 x 512 image: 8,385 and 10,212 positions."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_SIZE, *map(str, size)], capture_output=True, check=True, text=True
    )
    mebibytes, error = done.stdout.split()
    assert int(mebibytes) < 1024
    assert float(error) < 1e-5
