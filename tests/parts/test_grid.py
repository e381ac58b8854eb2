"""Labels and padding on another grid."""

import torch

from udabench.data.whole import whole_images
from udabench.labels import IGNORE
from udabench.parts.grid import inside, masked, nearest

LABEL = torch.tensor([[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, IGNORE]]])


def images(valid=None):
    return whole_images(torch.zeros(1, 3, 4, 4))._replace(valid=valid)


def test_a_coarser_cell_takes_its_first_pixel_and_a_finer_one_its_own():
    assert nearest(LABEL, (2, 2)).tolist() == [[[0, 2], [8, 10]]]
    assert nearest(LABEL[:, 2:, 2:], (4, 4)).tolist() == [
        [[10, 10, 11, 11], [10, 10, 11, 11], [14, 14, IGNORE, IGNORE], [14, 14, IGNORE, IGNORE]]
    ]
    assert torch.equal(nearest(LABEL, (4, 4)), LABEL)


def test_padding_claims_nothing_on_any_grid():
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[:, :, 2:] = False
    assert inside(images(valid), (2, 2)).tolist() == [[[True, False], [True, False]]]
    assert masked(LABEL, images(valid))[0, 0].tolist() == [0, 1, IGNORE, IGNORE]
    assert masked(LABEL[:, :2, :2], images(valid)).tolist() == [[[0, IGNORE], [4, IGNORE]]]


def test_without_padding_all_of_it_counts():
    assert inside(images(), (2, 3)).all()
    assert inside(images(), (2, 3)).shape == (1, 2, 3)
    assert masked(LABEL, images()) is LABEL
