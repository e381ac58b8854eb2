"""Prototypes by cells: against loops over pixels, and by hand."""

import pytest
import torch
from torch.nn import functional as F

from udabench.parts.prototypes import (
    Prototypes,
    RunningPrototypes,
    cell_counts,
    class_means,
    cosine_to,
    nearest_cells,
    spread_cells,
)

SIZES = [((4, 5), (13, 17)), ((92, 92), (730, 730)), ((3, 7), (3, 7)), ((33, 65), (256, 511))]
"""Grids and label sizes, which they need not divide."""


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_cells_are_those_of_nearest_upsampling(grid, size):
    value = torch.arange(grid[0] * grid[1]).view(1, 1, *grid)
    expected = F.interpolate(value.float(), size, mode="nearest")[0].long()
    assert torch.equal(spread_cells(value[0], size), expected)
    assert torch.equal(nearest_cells(grid[0], size[0], value.device), expected[0, :, 0] // grid[1])


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_every_pixel_is_counted_in_its_cell(grid, size):
    label = torch.randint(4, (2, *size), generator=rng())
    label[label == 3] = 255
    counts = cell_counts(label, 3, grid)
    cell = spread_cells(torch.arange(grid[0] * grid[1]).view(1, *grid), size)[0]
    for image in range(2):
        for c in range(3):
            expected = cell[label[image] == c].bincount(minlength=grid[0] * grid[1])
            assert torch.equal(counts[image, c], expected.float())


def test_a_mean_by_hand():
    """BiCL Eq 1: two pixels in one cell, one in another, one unknown."""
    features = torch.tensor([[[[1.0, 4.0]], [[2.0, 6.0]]]], dtype=torch.float64)  # cells (1, 2) and (4, 6)
    label = torch.tensor([[[0, 0, 0, 255]]])
    means, present = class_means(features, cell_counts(label, 2, (1, 2)))
    torch.testing.assert_close(means[0, 0], torch.tensor([(1 + 1 + 4) / 3, (2 + 2 + 6) / 3], dtype=torch.float64))
    assert present.tolist() == [[True, False]]
    assert means[0, 1].tolist() == [0, 0]


def test_autocast_rounds_no_mean():
    """1001 has no bfloat16: its neighbours are 1000 and 1008."""
    counts = cell_counts(torch.zeros(1, 1, 2).long(), 1, (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        means, _ = class_means(torch.tensor([1000.0, 1002.0]).view(1, 1, 1, 2), counts)
    assert means.dtype == torch.float32
    assert means.item() == 1001


def test_means_are_those_of_upsampled_features():
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=rng())
    label = torch.randint(6, (2, 13, 17), generator=rng(1))
    label[label == 5] = 255
    means, present = class_means(features, cell_counts(label, 5, (4, 5)))
    large = F.interpolate(features, (13, 17), mode="nearest")
    for image in range(2):
        for c in range(5):
            torch.testing.assert_close(means[image, c], large[image][:, label[image] == c].mean(1))
    assert present.all()


def test_cosines_are_those_of_torch_gradients_included():
    features = torch.randn(2, 7, 3, 4, dtype=torch.float64, generator=rng(), requires_grad=True)
    means = torch.randn(2, 5, 7, dtype=torch.float64, generator=rng(1), requires_grad=True)
    wanted = torch.randn(2, 5, 12, dtype=torch.float64, generator=rng(2))
    own = cosine_to(features, means)
    literal = F.cosine_similarity(features.flatten(2)[:, None], means[:, :, :, None], dim=2)
    torch.testing.assert_close(own, literal)
    theirs = torch.autograd.grad((literal * wanted).sum(), [features, means])
    for mine, other in zip(torch.autograd.grad((own * wanted).sum(), [features, means]), theirs, strict=True):
        torch.testing.assert_close(mine, other)
    torch.autograd.gradcheck(cosine_to, (features[:1, :, :2, :2], means[:1]))


def test_a_feature_of_zeros_has_a_finite_gradient():
    features = torch.zeros(1, 3, 1, 2, requires_grad=True)
    cosine = cosine_to(features, torch.ones(1, 2, 3))
    cosine.sum().backward()
    assert (cosine == 0).all()
    assert features.grad.isfinite().all()


def test_prototypes_of_all_images_at_once():
    features = torch.randn(3, 4, 2, 2, generator=rng())
    means = torch.randn(5, 4, generator=rng(1))
    torch.testing.assert_close(cosine_to(features, means)[2], cosine_to(features[2:], means[None])[0])


def test_running_prototypes_by_hand():
    """BiCL Eq 4: the first mean, then 0.9 old + 0.1 new, of the images that show the class."""
    running = RunningPrototypes(3, 1, momentum=0.9).double()

    def batch(first, second):
        means = torch.tensor([first, second], dtype=torch.float64)[:, :, None]
        return Prototypes(means.nan_to_num(), ~means[..., 0].isnan())

    nan = float("nan")
    running.update(batch([1, 4, nan], [3, nan, nan]))
    assert running.means[:, 0].tolist() == [2, 4, 0]
    assert running.seen.tolist() == [True, True, False]
    running.update(batch([12, nan, 5], [nan, nan, nan]))
    torch.testing.assert_close(running.means[:, 0], torch.tensor([3.0, 4, 5], dtype=torch.float64))
    assert running.seen.all()


def test_running_prototypes_keep_no_graph():
    running = RunningPrototypes(1, 2, momentum=0.5)
    means = torch.ones(1, 1, 2, requires_grad=True)
    running.update(Prototypes(means, torch.ones(1, 1, dtype=torch.bool)))
    assert not running.means.requires_grad
