"""Cars: a profile extruded over the width, drawn from the far faces to the near ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from udabench_toycity.camera import Color, shade
from udabench_toycity.canvas import Canvas, Sprite
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.thing import Thing

CAR = 13
_DETAIL = 48.0
"""Metres beyond which wheels and lights are smaller than a pixel or two."""
WHITE, RED, PLATE, DARK = (250, 246, 226), (206, 36, 34), (232, 230, 220), (36, 36, 38)


class Profile(NamedTuple):
    """A car from the side, from its front: metres along and up."""

    cowl: tuple[float, float]
    roof: tuple[float, float]
    back: tuple[float, float]
    shelf: tuple[float, float]
    length: float
    top: float
    nose: float


PROFILES = (
    Profile((1.05, 0.96), (1.85, 1.0), (3.45, 1.0), (3.95, 1.0), 4.0, 1.48, 0.74),
    Profile((1.15, 0.95), (1.95, 1.0), (3.1, 1.0), (3.75, 0.98), 4.5, 1.42, 0.7),
    Profile((1.1, 1.02), (1.7, 1.0), (4.2, 1.0), (4.55, 1.05), 4.65, 1.56, 0.8),
    Profile((0.75, 1.1), (1.5, 1.0), (4.5, 1.0), (4.6, 1.15), 4.8, 1.95, 0.95),
)
"""Hatchback, saloon, estate, van."""


class _Body:
    """A car in space; ``along`` runs from the front, whichever way the car faces."""

    def __init__(self, canvas: Canvas, thing: Thing, profile: Profile) -> None:
        self.canvas = canvas
        self.half = thing.width / 2
        self.x = thing.x
        self.side = -1 if thing.x > 0 else 1
        self.seen = abs(thing.x) > self.half * 0.9
        self.far = thing.z > _DETAIL
        self._z = thing.z
        self._away = thing.turn > 0
        self._length = profile.length

    def place(self, across: float, along: float, y: float) -> tuple[float, float, float]:
        """``across``: -1 to 1, in halves of the width."""
        z = self._z + (self._length - along if self._away else along)
        return self.x + across * self.half, y, z

    def quad(self, ends: Sequence[tuple[float, float, float]], color: Color) -> None:
        """A face that spans the car: each end is (half width, along, y)."""
        (w0, a0, y0), (w1, a1, y1) = ends
        corners = [self.place(-w0, a0, y0), self.place(w0, a0, y0), self.place(w1, a1, y1), self.place(-w1, a1, y1)]
        self.canvas.face(corners, color, CAR)

    def flank(self, outline: Sequence[tuple[float, float, float]], color: Color) -> None:
        """A polygon on the side that is seen."""
        self.canvas.face([self.place(w * self.side, a, y) for w, a, y in outline], color, CAR)


def draw_car(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    profile = PROFILES[thing.variant]
    color, glass = style.color(dice, "car"), style.color(dice, "glass")
    tire = style.color(dice, "tire")
    if thing.turn == 0:
        _side_view(canvas, thing, profile, color, glass, tire, dice.sign())
        return
    body = _Body(canvas, thing, profile)
    if body.seen:
        _flank(body, profile, shade(color, 80), glass, tire)
    _end(body, profile, color, glass, tire, away=thing.turn > 0)


def _flank(body: _Body, p: Profile, color: Color, glass: Color, tire: Color) -> None:
    n, top, belt = p.length, p.top, p.cowl[1]
    body.flank(
        [(1, 0, 0.28), (1, 0, p.nose), (1, p.cowl[0], belt), (0.8, p.roof[0], top), (0.8, p.back[0], top),
         (1, p.shelf[0], p.shelf[1]), (1, n, p.shelf[1] - 0.08), (1, n, 0.28)],
        color,
    )  # fmt: skip
    low, high = belt + 0.02, top - 0.08
    if body.far:
        front, back = p.cowl[0] + 0.25, p.shelf[0] - 0.2
        body.flank([(0.99, front, low), (0.83, p.roof[0], high), (0.83, p.back[0], high), (0.99, back, low)], glass)
        return
    middle = (p.roof[0] + p.back[0]) / 2
    body.flank(
        [
            (0.99, p.cowl[0] + 0.25, low),
            (0.83, p.roof[0] + 0.1, high),
            (0.83, middle - 0.05, high),
            (0.99, middle - 0.05, low),
        ],
        glass,
    )
    body.flank(
        [
            (0.99, middle + 0.05, low),
            (0.83, middle + 0.05, high),
            (0.83, p.back[0] - 0.05, high),
            (0.99, p.shelf[0] - 0.2, low),
        ],
        glass,
    )
    for along in (0.75, n - 0.8):
        draw_wheel(body.canvas, [body.place(body.side * 1.0, along + d, 0.32) for d in (-0.33, 0.33)], tire, CAR)


def draw_wheel(canvas: Canvas, ends: Sequence[tuple[float, float, float]], tire: Color, label: int) -> None:
    """A wheel on a flank, between two ends of its axle's height."""
    (x0, y, z0), (x1, _, z1) = ends
    z = (z0 + z1) / 2
    (xa, _), (xb, _) = canvas.camera.point(x0, y, z0), canvas.camera.point(x1, y, z1)
    _, row = canvas.camera.point(x0, y, z)
    r = int(0.33 * canvas.camera.focal / z // 1)
    low, high = min(xa, xb), max(xa, xb)
    canvas.ellipse(low, row - r, high, row + r, tire, label, z)
    if r > 5:
        inset = (high - low) // 4
        canvas.ellipse(low + inset, row - r // 2, high - inset, row + r // 2, (128, 130, 134), label, z)


def _end(body: _Body, p: Profile, color: Color, glass: Color, tire: Color, away: bool) -> None:
    """What faces the camera: the rear of a car that drives away, the front of one that comes."""
    near = p.length if away else 0.0
    foot, edge = (p.shelf[0], p.shelf[1]) if away else (p.cowl[0], p.cowl[1])
    roof = p.back[0] if away else p.roof[0]
    lip = p.shelf[1] - 0.06 if away else p.nose
    if not body.far:
        body.quad([(0.8, p.roof[0], p.top), (0.8, p.back[0], p.top)], shade(color, 112))
    body.quad([(1, foot, edge), (0.8, roof, p.top)], shade(color, 96))
    body.quad([(0.9, foot, edge + 0.02), (0.73, roof, p.top - 0.07)], glass)
    body.quad([(1, near, lip), (1, foot, edge)], shade(color, 110))
    if body.far:
        body.quad([(0.95, near, 0.0), (0.95, near, 0.3)], tire)
        body.quad([(1, near, 0.25), (1, near, lip)], color)
        return
    for side in (-1, 1):
        corners = [body.place(side * w, near, y) for w, y in ((0.96, 0.0), (0.7, 0.0), (0.7, 0.32), (0.96, 0.32))]
        body.canvas.face(corners, tire, CAR)
    body.quad([(1, near, 0.25), (1, near, lip)], color)
    body.quad([(1, near, 0.25), (1, near, 0.4)], shade(color, 70))
    _details(body, near, lip, away)


def _details(body: _Body, near: float, lip: float, away: bool) -> None:
    light, low = (RED, lip - 0.28) if away else (WHITE, lip - 0.2)
    for side in (-1, 1):
        corners = [
            body.place(side * w, near, y) for w, y in ((0.97, low), (0.66, low), (0.66, lip - 0.04), (0.97, lip - 0.04))
        ]
        body.canvas.face(corners, light, CAR)
    if not away:
        body.quad([(0.6, near, lip - 0.2), (0.6, near, lip - 0.06)], DARK)
    body.quad([(0.28, near, 0.42), (0.28, near, 0.53)], PLATE)


def _side_view(canvas: Canvas, thing: Thing, p: Profile, color: Color, glass: Color, tire: Color, sign: int) -> None:
    """A car that crosses the street."""
    s = Sprite(canvas, thing.x, thing.z, CAR, squeeze=sign)
    n, o = p.length, p.length / 2
    s.poly(
        [(-o, 0.28), (-o, p.nose), (p.cowl[0] - o, p.cowl[1]), (p.roof[0] - o, p.top), (p.back[0] - o, p.top),
         (p.shelf[0] - o, p.shelf[1]), (n - o, p.shelf[1] - 0.1), (n - o, 0.28)],
        color,
    )  # fmt: skip
    s.rect(-o, 0.25, o, 0.38, shade(color, 70))
    middle, low, high = (p.roof[0] + p.back[0]) / 2 - o, p.cowl[1] + 0.02, p.top - 0.08
    s.poly(
        [(p.cowl[0] + 0.2 - o, low), (p.roof[0] + 0.05 - o, high), (middle - 0.05, high), (middle - 0.05, low)], glass
    )
    s.poly(
        [(middle + 0.05, low), (middle + 0.05, high), (p.back[0] - 0.05 - o, high), (p.shelf[0] - 0.15 - o, low)], glass
    )
    for u in (0.75 - o, n - 0.8 - o):
        s.ball(u, 0.33, 0.33, tire)
        s.ball(u, 0.33, 0.17, (128, 130, 134))
