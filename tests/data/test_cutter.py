"""Cutting from a scaled image, against scaling all of it with Pillow and cutting then."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from udabench.data.crop import Window
from udabench.data.cutter import PADDING, Cutter
from udabench.size import Size

SIZES = [(Size(31, 47), factor) for factor in (0.5, 0.8, 0.93, 1.2, 1.5, 2.37)]


def scene(size: Size) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 19, size, np.uint8)


def whole(pixels: np.ndarray, size: Size, how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((size.width, size.height), how))


@pytest.mark.parametrize(("size", "factor"), SIZES)
@pytest.mark.parametrize("mirror", [False, True])
def test_a_window_is_that_of_the_whole_scaled_image(size: Size, factor: float, mirror: bool) -> None:
    image, label = scene(size)
    cutter = Cutter(size, size.scaled(factor))
    across = -1 if mirror else 1
    images = whole(image, cutter.scaled, Image.Resampling.BILINEAR).astype(int)
    labels = whole(label, cutter.scaled, Image.Resampling.NEAREST)
    for top, left in ((0, 0), (3, 5), (cutter.scaled.height - 11, cutter.scaled.width - 13)):
        window = Window(top, left, 11, 13)
        cut = cutter.image(image, window, mirror).permute(1, 2, 0).numpy()
        # Pillow's coefficients are rounded; where a window begins shifts them by a hair.
        assert np.abs(cut - images[window.slices][:, ::across]).max() <= 1
        np.testing.assert_array_equal(cutter.label(label, window, mirror), labels[window.slices][:, ::across])
        np.testing.assert_array_equal(cutter.seen(label, window), labels[window.slices])
        layer = torch.from_numpy(np.stack((label, label + 100)))
        assert torch.equal(
            cutter.layer(layer, window, mirror)[1].long(), cutter.label(label, window, mirror).long() + 100
        )
        assert cutter.valid(window, mirror).all()


def test_doubling_by_hand() -> None:
    # A triangle of support 1: three quarters of the nearer pixel, a quarter of the other one; the border alone.
    image = np.repeat(np.array([[0, 40, 80, 120]], np.uint8)[..., None], 3, axis=2)
    cutter = Cutter(Size(1, 4), Size(2, 8))
    assert cutter.image(image, Window(0, 0, 1, 8), False)[0, 0].tolist() == [0, 10, 30, 50, 70, 90, 110, 120]
    assert cutter.image(image, Window(1, 3, 1, 4), True)[0, 0].tolist() == [110, 90, 70, 50]
    assert cutter.seen(image[..., 0], Window(1, 3, 1, 4)).tolist() == [[40, 80, 80, 120]]


def test_what_lies_beyond_the_image_is_padding() -> None:
    image, label = np.full((8, 8, 3), 200, np.uint8), np.full((8, 8), 7, np.uint8)
    cutter, window = Cutter(Size(8, 8), Size(4, 6)), Window(0, 2, 5, 5)
    inside = torch.zeros(5, 5, dtype=torch.bool)
    inside[:4, :4] = True
    assert torch.equal(cutter.valid(window, False), inside)
    shown = cutter.image(image, window, False)
    assert (shown[:, inside] == 200).all()
    assert shown[:, ~inside].unique(dim=1).flatten().tolist() == list(PADDING)
    assert torch.equal(cutter.label(label, window, False), torch.where(inside, 7, 255).to(torch.uint8))
    ids, soft = torch.full((8, 8), 7), torch.full((2, 8, 8), 0.5)
    assert torch.equal(cutter.layer(ids, window, False), torch.where(inside, 7, 255))
    assert torch.equal(cutter.layer(soft, window, False), inside.expand(2, 5, 5) * 0.5)
    assert torch.equal(cutter.layer(ids.bool(), window, False), inside)
    for cut in (cutter.valid, lambda *place: cutter.label(label, *place) == 7):
        assert torch.equal(cut(window, True), inside.flip(-1))


@pytest.mark.parametrize(("size", "factor"), SIZES)
def test_a_pixel_is_found_again_after_scaling(size: Size, factor: float) -> None:
    cutter = Cutter(size, size.scaled(factor))
    marked = np.arange(size.height * size.width, dtype=np.int64).reshape(size)
    shown = cutter.layer(torch.from_numpy(marked), Window(0, 0, *cutter.scaled), False)
    for row, column in ((0, 0), (size.height - 1, size.width - 1), (11, 30)):
        there = cutter.scale(row, column)
        near = shown[there]
        # What shrinks may have lost the pixel itself; its neighbour then stands there.
        reach = 0 if factor > 1 else 1
        assert abs(int(near) // size.width - row) <= reach
        assert abs(int(near) % size.width - column) <= reach


def test_unscaled_cuts_are_copies_of_the_very_pixels() -> None:
    image, label = scene(Size(8, 9))
    cutter, window = Cutter(Size(8, 9), Size(8, 9)), Window(2, 3, 4, 5)
    assert cutter.seen(label, window).base is label
    cut = cutter.label(label, window, False)
    cut[:] = 99
    assert 99 not in label
    np.testing.assert_array_equal(cutter.image(image, window, False).permute(1, 2, 0), image[2:6, 3:8])
