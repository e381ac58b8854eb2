"""Textures, made once a process from fixed random bytes: surfaces, broad patches, camera noise. Integers only."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from udabench_toycity.camera import HEIGHT, WIDTH
from udabench_toycity.dice import Dice

Bytes = npt.NDArray[np.uint8]
SIDE = 256
"""Texels a side; textures repeat."""
ASPHALT, PAVING, GRASS, PLASTER, BRICK, LEAF = range(6)
TEXELS = 32
"""Texels a metre: a texture repeats every 8 m."""
_KEY = 77


def _cells(dice: Dice, cell: int, side: int = SIDE) -> npt.NDArray[np.int32]:
    """Noise of one cell size, -128 to 127, linear between cells, repeating at the edges."""
    count = side // cell
    corner = dice.bytes(count, count).astype(np.int32) - 128
    at = np.arange(side)
    i, part = at // cell, (at % cell).astype(np.int32)
    rows: npt.NDArray[np.int32] = corner[i] * (cell - part)[:, None] + corner[(i + 1) % count] * part[:, None]
    grid = rows[:, i] * (cell - part) + rows[:, (i + 1) % count] * part
    result: npt.NDArray[np.int32] = grid // (cell * cell)
    return result


def _surface(dice: Dice, *layers: tuple[int, int]) -> npt.NDArray[np.int32]:
    """A sum of (cell size, percent)."""
    total = np.zeros((SIDE, SIDE), np.int32)
    for cell, percent in layers:
        total += _cells(dice, cell) * percent // 100
    return total


def _blocks(dice: Dice, width: int, height: int, joint: int) -> npt.NDArray[np.int32]:
    """Courses of blocks, every other one shifted by half; each block has its own tone, joints are dark."""
    y, x = np.divmod(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), SIDE)
    course = y // height
    x = (x + (course % 2) * (width // 2)) % SIDE
    tone = dice.bytes(SIDE // height, SIDE // width).astype(np.int32)[course, x // width] - 128
    seam = (y % height < joint) | (x % width < joint)
    result: npt.NDArray[np.int32] = np.where(seam, -90, tone * 2 // 5)
    return result


@cache
def surfaces() -> Bytes:
    """6 256 256: by kind; 128 is neutral."""
    dice = Dice(_KEY, 1)
    kinds = (
        _surface(dice, (1, 35), (4, 25), (32, 45), (128, 40)),
        _blocks(dice, 16, 16, 1) + _surface(dice, (2, 25), (64, 35)),
        _surface(dice, (1, 45), (2, 50), (8, 40), (64, 40)),
        _surface(dice, (2, 20), (16, 30), (64, 50), (128, 35)),
        _blocks(dice, 16, 8, 1) + _surface(dice, (2, 20), (64, 30)),
        _surface(dice, (1, 40), (2, 70), (4, 70), (16, 45)),
    )
    bank: Bytes = np.clip(np.stack(kinds) + 128, 0, 255).astype(np.uint8)
    return bank


@cache
def screen(kind: int) -> Bytes:
    """512 1024, a surface as it is laid over the picture itself, to be cut at any place up to (256, 512)."""
    return np.tile(surfaces()[kind], (2 * HEIGHT // SIDE, 2 * WIDTH // SIDE))


@cache
def patches() -> Bytes:
    """512 1024, broad soft noise for clouds and patches of light; 128 is neutral."""
    dice = Dice(_KEY, 2)
    side = 2 * HEIGHT
    soft = sum(_cells(dice, cell, side) * percent // 100 for cell, percent in ((128, 75), (64, 50), (32, 25), (16, 12)))
    return np.tile(np.clip(soft + 128, 0, 255).astype(np.uint8), (1, 2))


@cache
def grain() -> npt.NDArray[np.int16]:
    """512 1024 3, camera noise of standard deviation 64: a sum of four bytes is near enough to a bell."""
    dice = Dice(_KEY, 3)
    shape = (2 * HEIGHT, 2 * WIDTH)
    gray = dice.bytes(4, *shape).astype(np.int32).sum(0) - 510
    own = dice.bytes(4, *shape, 3).astype(np.int32).sum(0) - 510
    # The sum of four bytes has a deviation of 147.8; 0.87 squared and 0.5 squared make about one.
    noise: npt.NDArray[np.int16] = ((gray[..., None] * 87 + own * 50) * 64 // 14780).astype(np.int16)
    return noise


@cache
def corners() -> npt.NDArray[np.uint16]:
    """256 512, squared distance from the centre: 0 there, 256 in the corners."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    y, x = 2 * y + 1 - HEIGHT, 2 * x + 1 - WIDTH
    squares = (y * y * WIDTH * WIDTH + x * x * HEIGHT * HEIGHT) * 128 // (HEIGHT * HEIGHT * WIDTH * WIDTH)
    result: npt.NDArray[np.uint16] = squares.astype(np.uint16)
    return result
