"""Filled shapes in whole numbers: every pixel is the same on every machine and with every release of every library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from udabench_toycity.camera import HEIGHT, WIDTH, Point


class Raster:
    """256 rows of 512 pixels of one number each; shapes overwrite each other."""

    def __init__(self, dtype: npt.DTypeLike, value: int = 0) -> None:
        self.pixels: npt.NDArray[Any] = np.full((HEIGHT, WIDTH), value, dtype)
        self._flat = self.pixels.reshape(-1)

    def rectangle(self, x0: int, y0: int, x1: int, y1: int, ink: int) -> None:
        """Both corners included."""
        if x1 >= 0 and y1 >= 0:
            self.pixels[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = ink

    def ellipse(self, x0: int, y0: int, x1: int, y1: int, ink: int) -> None:
        """The ellipse that fills a box, corners included."""
        if x1 < 0 or x0 >= WIDTH or y1 < 0 or y0 >= HEIGHT:
            return
        flat, value = self._flat, np.array(ink, self.pixels.dtype)
        insets = _insets(x1 - x0 + 1, y1 - y0 + 1)
        for y in range(max(y0, 0), min(y1, HEIGHT - 1) + 1):
            inset = insets[y - y0]
            low, high = x0 + inset, x1 - inset
            if high < 0 or low >= WIDTH:
                continue
            start = y * WIDTH
            flat[start + (low if low > 0 else 0) : start + (high + 1 if high < WIDTH else WIDTH)] = value

    def line(self, x0: int, y0: int, x1: int, y1: int, ink: int) -> None:
        """One pixel wide, both ends included."""
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            x, y = x0 + (2 * i * (x1 - x0) + steps) // (2 * steps), y0 + (2 * i * (y1 - y0) + steps) // (2 * steps)
            if 0 <= x < WIDTH and 0 <= y < HEIGHT:
                self.pixels[y, x] = ink

    def polygon(self, points: Sequence[Point], ink: int) -> None:
        """Each row is filled from its first to its last crossing, so a shape must not be hollow from the side."""
        top, left, right = crossings(points)
        flat, start, value = self._flat, top * WIDTH, np.array(ink, self.pixels.dtype)
        for low, high in zip(left, right, strict=True):
            if high >= 0 and low < WIDTH:
                flat[start + (low if low > 0 else 0) : start + (high + 1 if high < WIDTH else WIDTH)] = value
            start += WIDTH


def crossings(points: Sequence[Point]) -> tuple[int, list[int], list[int]]:
    """First visible row, and the leftmost and rightmost column of each visible row, edges included."""
    heights = [y for _, y in points]
    top, bottom = max(min(heights), 0), min(max(heights), HEIGHT - 1)
    count = max(0, bottom - top + 1)
    left, right = [1 << 30] * count, [-1 << 30] * count
    x0, y0 = points[-1]
    for x1, y1 in points:
        xa, ya, xb, yb = (x0, y0, x1, y1) if y0 <= y1 else (x1, y1, x0, y0)
        first = ya if ya > top else top
        # Sixteen bits after the point; rounded to the nearest column.
        step = ((xb - xa) << 16) // (yb - ya) if ya < yb else 0
        x = (xa << 16) + 32768 + step * (first - ya)
        for i in range(first - top, (yb if yb < bottom else bottom) - top + 1):
            column = x >> 16
            if column < left[i]:
                left[i] = column
            if column > right[i]:
                right[i] = column
            x += step
        x0, y0 = x1, y1
    return top, left, right


@lru_cache(maxsize=8192)
def _insets(width: int, height: int) -> tuple[int, ...]:
    """How far each row of an ellipse stays away from its box."""
    squares = (height * height - (2 * i + 1 - height) ** 2 for i in range(height))
    return tuple((width - isqrt(width * width * square) // height) // 2 for square in squares)
