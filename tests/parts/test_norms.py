"""Statistics that do not move."""

import torch
from torch import nn

from udabench.parts.norms import statistics_kept, statistics_used


def test_running_statistics_stay_and_the_output_is_that_of_the_batch():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    image = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with statistics_kept(norm):
        inside = norm(image)
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert torch.equal(norm.running_var, torch.ones(2))
    mean, var = image.mean((0, 2, 3), keepdim=True), image.var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(inside, (image - mean) / (var + norm.eps).sqrt())
    norm(image)
    torch.testing.assert_close(norm.running_mean, 0.3 * mean.flatten())


def test_momenta_come_back_after_an_error():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    try:
        with statistics_kept(norm):
            raise RuntimeError
    except RuntimeError:
        pass
    assert norm.momentum == 0.3


def test_used_statistics_normalise_and_do_not_move_while_weights_learn():
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(1)
    norm.running_var.fill_(4)
    module = nn.Sequential(norm, nn.Dropout())
    image = torch.randn(3, 2, 4, 4)
    with statistics_used(module):
        assert module[1].training
        inside = norm(image)
    torch.testing.assert_close(inside, (image - 1) / (4 + norm.eps) ** 0.5)
    inside.sum().backward()
    assert norm.weight.grad is not None
    assert torch.equal(norm.running_mean, torch.ones(2))
    assert norm.training
    norm.eval()
    with statistics_used(module):
        pass
    assert not norm.training
