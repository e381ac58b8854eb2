"""Trucks, buses and trams: tall boxes of which the near end and one flank are seen."""

from __future__ import annotations

from collections.abc import Sequence

from udabench_toycity.camera import Color, shade
from udabench_toycity.canvas import Canvas, Sprite
from udabench_toycity.car import DARK, PLATE, RED, WHITE, draw_wheel
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.thing import Thing

TRUCK, BUS, TRAIN = 14, 15, 16
AMBER = (255, 190, 70)


class _Box:
    """A tall box whose near end and one flank are seen."""

    def __init__(self, canvas: Canvas, thing: Thing, label: int) -> None:
        self.canvas, self.label = canvas, label
        self.x, self.z, self.half, self.length = thing.x, thing.z, thing.width / 2, thing.length
        self.side = -1 if thing.x > 0 else 1
        self.seen = abs(thing.x) > self.half

    def end(self, u0: float, y0: float, u1: float, y1: float, color: Color, z: float = 0.0) -> None:
        """A rectangle on the near end; u from -1 to 1; ``z`` metres behind it."""
        (xa, yb), (xb, ya) = (
            self.canvas.camera.point(self.x + u * self.half, y, self.z + z) for u, y in ((u0, y0), (u1, y1))
        )
        self.canvas.raster.rectangle(
            min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb), self.canvas.ink(color, self.label, self.z + z)
        )

    def flank(self, a0: float, y0: float, a1: float, y1: float, color: Color) -> None:
        """A rectangle on the flank, from a0 to a1 metres behind the near end."""
        if self.seen:
            x = self.x + self.side * self.half
            corners = [(x, y0, self.z + a0), (x, y1, self.z + a0), (x, y1, self.z + a1), (x, y0, self.z + a1)]
            self.canvas.face(corners, color, self.label)

    def wheels(self, places: Sequence[float], tire: Color) -> None:
        if self.seen:
            x = self.x + self.side * self.half
            for a in places:
                draw_wheel(self.canvas, [(x, 0.42, self.z + a - 0.45), (x, 0.42, self.z + a + 0.45)], tire, self.label)


def draw_truck(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    box = _Box(canvas, thing, TRUCK)
    cargo, cab, tire = style.color(dice, "truck"), style.color(dice, "truck"), style.color(dice, "tire")
    glass, n, top = style.color(dice, "glass"), thing.length, thing.height
    if thing.turn > 0:
        box.flank(n - 1.9, 0.5, n, top - 0.7, shade(cab, 80))
        box.flank(n - 1.4, 1.5, n - 0.3, top - 1.0, glass)
        box.flank(0, 0.95, n - 2.2, top, shade(cargo, 80))
        box.flank(0, 0.55, n - 2.2, 0.95, DARK)
        box.wheels((0.9, 2.0, n - 1.0), tire)
        _truck_rear(box, cargo, tire, top)
        return
    box.flank(2.2, 0.95, n, top, shade(cargo, 80))
    box.flank(2.0, 0.55, n, 0.95, DARK)
    box.end(-1, 0.9, 1, top, cargo, z=2.2)
    box.flank(0, 0.45, 2.0, top - 0.7, shade(cab, 80))
    box.flank(0.3, 1.5, 1.3, top - 1.0, glass)
    box.wheels((0.9, n - 2.2, n - 1.0), tire)
    _truck_front(box, cab, glass, tire, top)


def _truck_rear(box: _Box, cargo: Color, tire: Color, top: float) -> None:
    for u in (-0.92, 0.5):
        box.end(u, 0, u + 0.42, 0.8, tire)
    box.end(-0.95, 0.5, 0.95, 0.95, DARK)
    box.end(-1, 0.95, 1, top, cargo)
    box.end(-0.03, 1.0, 0.03, top - 0.1, shade(cargo, 70))
    box.end(-1, top - 0.12, 1, top, shade(cargo, 115))
    for u in (-0.9, 0.62):
        box.end(u, 0.65, u + 0.28, 0.85, RED)
    box.end(-0.2, 0.62, 0.2, 0.78, PLATE)


def _truck_front(box: _Box, cab: Color, glass: Color, tire: Color, top: float) -> None:
    for u in (-0.92, 0.6):
        box.end(u, 0, u + 0.32, 0.6, tire)
    box.end(-0.97, 0.4, 0.97, top - 0.7, cab)
    box.end(-0.85, 1.55, 0.85, top - 0.95, glass)
    box.end(-0.6, 0.75, 0.6, 1.3, DARK)
    for u in (-0.92, 0.66):
        box.end(u, 0.55, u + 0.26, 0.75, WHITE)


def draw_bus(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    box = _Box(canvas, thing, BUS)
    color, glass, tire = style.color(dice, "bus"), style.color(dice, "glass"), style.color(dice, "tire")
    n, top = thing.length, thing.height
    box.flank(0, 0.3, n, top, shade(color, 80))
    for i in range(int(n / 1.6)):
        box.flank(0.3 + i * 1.6, 1.3, 1.7 + i * 1.6, top - 0.55, glass)
    box.wheels((2.4, n - 2.6), tire)
    for u in (-0.92, 0.6):
        box.end(u, 0, u + 0.32, 0.5, tire)
    box.end(-1, 0.3, 1, top, color)
    box.end(-1, top - 0.1, 1, top, shade(color, 115))
    low, light = (1.5, RED) if thing.turn > 0 else (1.05, WHITE)
    box.end(-0.88, low, 0.88, top - 0.55, glass)
    box.end(-0.6, top - 0.46, 0.6, top - 0.16, DARK)
    box.end(-0.45, top - 0.4, 0.45, top - 0.22, AMBER)
    for u in (-0.92, 0.66):
        box.end(u, 0.55, u + 0.26, 0.8, light)
    box.end(-0.22, 0.42, 0.22, 0.55, PLATE)


def draw_train(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    """A tram: on rails, long, with a rounded head, a band of another colour and a pantograph."""
    box = _Box(canvas, thing, TRAIN)
    color, glass, n, top = style.color(dice, "train"), style.color(dice, "glass"), thing.length, thing.height
    pale = shade(color, 135)
    box.flank(0, 0.15, n, top, shade(color, 80))
    box.flank(0, 0.15, n, 0.45, DARK)
    box.flank(0, 1.15, n, 1.35, pale)
    for i in range(int(n / 2.4)):
        box.flank(0.5 + i * 2.4, 1.5, 2.5 + i * 2.4, top - 0.6, glass)
    s = Sprite(canvas, thing.x, thing.z, TRAIN)
    _pantograph(s, top)
    _train_head(s, thing, color, glass, pale)


def _pantograph(s: Sprite, top: float) -> None:
    s.bar((-0.5, top + 0.9), (0.5, top + 0.9), 0.08, DARK)
    s.bar((0, top), (0.45, top + 0.45), 0.07, DARK)
    s.bar((0.45, top + 0.45), (0, top + 0.9), 0.07, DARK)


def _train_head(s: Sprite, thing: Thing, color: Color, glass: Color, pale: Color) -> None:
    h, top = thing.width / 2, thing.height
    s.poly(
        [
            (-h * 0.8, 0.1),
            (-h, 0.5),
            (-h, top - 0.7),
            (-h * 0.72, top),
            (h * 0.72, top),
            (h, top - 0.7),
            (h, 0.5),
            (h * 0.8, 0.1),
        ],
        color,
    )
    s.poly(
        [
            (-h * 0.8, 1.45),
            (-h * 0.8, top - 0.85),
            (-h * 0.6, top - 0.5),
            (h * 0.6, top - 0.5),
            (h * 0.8, top - 0.85),
            (h * 0.8, 1.45),
        ],
        glass,
    )
    s.rect(-h * 0.3, top - 0.42, h * 0.3, top - 0.14, AMBER)
    s.rect(-h, 1.12, h, 1.3, pale)
    s.poly([(-h * 0.8, 0.1), (-h * 0.94, 0.4), (h * 0.94, 0.4), (h * 0.8, 0.1)], DARK)
    for u in (-0.65, 0.0, 0.65):
        s.ball(u * h, 0.8, 0.13, WHITE if thing.turn < 0 else RED)
