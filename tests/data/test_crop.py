from __future__ import annotations

import numpy as np

from udabench.data.crop import REDRAWS, Place, Window, cut_pixels, draw_place, draw_until, place_around, varied
from udabench.data.randomness import rng_at
from udabench.size import Size


def test_crops_reach_every_place_and_stay_inside() -> None:
    size, crop = Size(6, 7), Size(5, 5)
    corners = {draw_place(size, crop, None, rng_at(i)).crop[:2] for i in range(200)}
    assert corners == {(top, left) for top in range(2) for left in range(3)}


def test_the_crop_lies_in_its_context() -> None:
    for i in range(100):
        crop, context = draw_place(Size(20, 40), Size(8, 8), Size(12, 24), rng_at(i))
        assert 0 <= context.top <= 8
        assert 0 <= context.left <= 16
        assert context.top <= crop.top <= context.top + 4
        assert context.left <= crop.left <= context.left + 16


def test_a_smaller_picture_is_where_crop_and_context_begin() -> None:
    """Of 10 x 30 pixels, with a context of 24 x 24 and a crop of 8 x 12; and of 6 x 30, lower than the crop."""
    places = [draw_place(Size(10, 30), Size(8, 12), Size(24, 24), rng_at(i)) for i in range(300)]
    assert {(place.context.top, place.crop.top) for place in places} == {(0, top) for top in range(3)}
    assert {place.context.left for place in places} == set(range(7))
    assert {place.crop.left - place.context.left for place in places} == set(range(13))
    low = [draw_place(Size(6, 30), Size(8, 12), Size(24, 24), rng_at(i)).crop for i in range(20)]
    assert {crop.top for crop in low} == {0}
    assert draw_place(Size(6, 5), Size(8, 12), None, rng_at(0)).crop == Window(0, 0, 8, 12)
    around = place_around((5, 29), Size(6, 30), Size(8, 12), Size(24, 24), rng_at(0))
    assert around.crop == Window(0, 18, 8, 12)
    assert (around.context.top, around.context.left) == (0, 6)


def test_varied_by_hand() -> None:
    # Three of four known pixels are one class; the ignored ones do not count.
    label = np.array([[1, 1, 1], [2, 255, 255]], np.uint8)
    assert not varied(label, 0.75)
    assert varied(label, 0.76)
    assert not varied(np.array([[1, 1, 255]], np.uint8), 1.1)
    assert not varied(np.full((2, 2), 255, np.uint8), 0.9)


def test_ten_redraws_and_no_more() -> None:
    tries: list[int] = []

    def draw() -> Place:
        tries.append(1)
        window = Window(len(tries), 0, 1, 1)
        return Place(window, window)

    assert draw_until(draw, lambda window: False).crop.top == 1 + REDRAWS
    tries.clear()
    assert draw_until(draw, lambda window: window.top == 3).crop.top == 3


def test_cutting_copies() -> None:
    label = np.zeros((4, 4), np.uint8)
    cut = cut_pixels(label, Window(0, 0, 4, 4), mirror=False)
    cut[0, 0] = 9
    assert label[0, 0] == 0
