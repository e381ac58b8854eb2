"""Trees and bushes: a trunk and a crown of overlapping discs, dark below and light above."""

from __future__ import annotations

from udabench_toycity.camera import shade
from udabench_toycity.canvas import Canvas, Sprite
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.thing import Thing

VEGETATION = 8


def draw_tree(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    """``height`` up to the top, ``width`` of the crown."""
    s = Sprite(canvas, thing.x, thing.z, VEGETATION)
    trunk, leaf = style.color(dice, "trunk"), style.color(dice, "leaf")
    base = thing.height - thing.width * 0.95
    if base > 0.4:
        fork = base + 0.6
        s.poly([(-0.2, 0), (-0.12, fork), (0.12, fork), (0.2, 0)], trunk)
        for side in (-1, 1):
            s.bar((0, base), (side * thing.width * 0.22, base + thing.width * 0.3), 0.12, trunk)
    _crown(s, max(base, 0.0) + thing.width * 0.47, thing.width / 2, leaf, dice)


def draw_bush(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    s = Sprite(canvas, thing.x, thing.z, VEGETATION)
    _crown(s, thing.height * 0.45, thing.width / 2, style.color(dice, "leaf"), dice)


def _crown(s: Sprite, middle: float, radius: float, leaf: tuple[int, int, int], dice: Dice) -> None:
    near = s.scale * radius
    count = 38 if near > 40 else 22 if near > 14 else 9
    s.ball(0, middle, radius * 0.72, shade(leaf, 72))
    for i in range(count):
        u, v = _in_disc(dice)
        # Discs come from below upwards, lighter and smaller: light falls from above, leaves end in small tips.
        height = 2 * i / count - 1
        v = 0.55 * height + 0.45 * v
        size = dice.between(0.16, 0.34) - 0.05 * abs(height)
        tone = int(84 + 17 * height + 14 * v + dice.between(-7, 7))
        s.ball(u * radius * 0.8, middle + v * radius * 0.85, radius * size, shade(leaf, tone))


def _in_disc(dice: Dice) -> tuple[float, float]:
    while True:
        u, v = dice.between(-1, 1), dice.between(-1, 1)
        if u * u + v * v < 1:
            return u, v
