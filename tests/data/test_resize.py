from __future__ import annotations

import numpy as np
import pytest

from udabench.data.resize import Resized, resize_image, resize_label
from udabench.dataset import Unlabelled
from udabench.errors import DataError, UserError
from udabench.size import Size


def test_bilinear_halving_by_hand() -> None:
    # A triangle of support 2 around the centre of each pair, cut off at the border: weights 3, 3, 1 of 7 at the ends.
    row = np.array([0, 70, 140, 210], np.uint8)
    image = np.repeat(np.tile(row, (2, 1))[..., None], 3, axis=2)
    assert resize_image(image, Size(2, 2))[0, :, 0].tolist() == [50, 160]


def test_labels_take_a_neighbour_and_never_mix() -> None:
    label = np.array([[0, 18], [255, 7]], np.uint8)
    grown = resize_label(label, Size(4, 6))
    np.testing.assert_array_equal(grown, label.repeat(2, 0).repeat(3, 1))
    assert set(np.unique(resize_label(label, Size(3, 3)))) <= {0, 7, 18, 255}


def test_a_fitting_size_returns_the_same_pixels() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert resize_image(image, Size(4, 4)) is image


def test_the_unlabelled_view_gives_no_label(make_gta5) -> None:
    images = Resized(Unlabelled(make_gta5()), Size(30, 50))
    assert images.image("00001").shape == (30, 50, 3)
    with pytest.raises(UserError, match="not available"):
        images.pair("00001")


def test_a_label_of_another_size_is_named(make_gta5) -> None:
    data = make_gta5()
    (data.root / "labels/00002.png").replace(data.root / "labels/00001.png")
    with pytest.raises(DataError, match=r"labels/00001.png is 96x58 but its image '00001' is 100x60"):
        Resized(data, Size(30, 50)).pair("00001")
