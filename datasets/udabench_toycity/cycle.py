"""Bicycles and motorcycles, parked or with a rider; seen from the side, foreshortened, or from an end."""

from __future__ import annotations

from udabench_toycity.camera import Color, mix, shade
from udabench_toycity.canvas import Canvas, Sprite
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.thing import Thing

RIDER, MOTORCYCLE, BICYCLE = 12, 17, 18
_SEEN = (0.0, 0.4, 0.7, 1.0)
"""Foreshortening by the thing's variant; 0: from an end."""


def draw_bicycle(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    _draw(canvas, thing, style, dice, BICYCLE, rider=False)


def draw_cyclist(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    _draw(canvas, thing, style, dice, BICYCLE, rider=True)


def draw_motorcycle(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    _draw(canvas, thing, style, dice, MOTORCYCLE, rider=False)


def draw_motorcyclist(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    _draw(canvas, thing, style, dice, MOTORCYCLE, rider=True)


def _draw(canvas: Canvas, thing: Thing, style: Style, dice: Dice, label: int, rider: bool) -> None:
    squeeze = _SEEN[thing.variant]
    s = Sprite(canvas, thing.x, thing.z, label, squeeze=(squeeze or 1.0) * (thing.turn or 1))
    frame, tire = style.color(dice, "cycle"), style.color(dice, "tire")
    between = mix(style.color(dice, "road"), canvas.air.color, 0.15)
    end, side = (_bicycle_end, _bicycle) if label == BICYCLE else (_motorcycle_end, _motorcycle)
    if squeeze:
        side(s, frame, tire, between)
    else:
        end(s, frame, tire, away=thing.turn > 0)
    if rider:
        clothes = _Clothes(style, dice, helmet=label == MOTORCYCLE or dice.chance(0.85))
        if squeeze:
            _rider(s, clothes, seat=(-0.2, 0.98) if label == BICYCLE else (-0.25, 0.85))
        else:
            _rider_end(s, clothes, seat=1.0 if label == BICYCLE else 0.85, away=thing.turn > 0)


class _Clothes:
    def __init__(self, style: Style, dice: Dice, helmet: bool) -> None:
        self.top = style.color(dice, "jacket")
        self.trousers = style.color(dice, "trousers")
        self.skin = style.color(dice, "skin")
        self.head = style.color(dice, "helmet" if helmet else "hair")
        self.full_face = helmet and dice.chance(0.5)


def _bicycle(s: Sprite, frame: Color, tire: Color, between: Color) -> None:
    for u in (-0.53, 0.53):
        s.disc(u, 0.35, 0.36, tire)
        s.disc(u, 0.35, 0.28, between)
        if s.scale > 25:
            for du, dv in ((0.26, 0.0), (0.0, 0.26), (0.18, 0.18), (0.18, -0.18)):
                s.bar((u - du, 0.35 - dv), (u + du, 0.35 + dv), 0.01, shade(tire, 180))
    crank, seat, head = (-0.05, 0.32), (-0.2, 0.82), (0.4, 0.85)
    pairs = ((crank, seat), (seat, (0.42, 0.75)), (crank, (0.42, 0.68)), (crank, (-0.53, 0.35)), ((-0.53, 0.35), seat))
    for a, b in (*pairs, (head, (0.53, 0.35))):
        s.bar(a, b, 0.065, frame)
    s.bar((-0.2, 0.8), (-0.22, 0.92), 0.05, tire)
    s.bar((-0.36, 0.95), (-0.06, 0.95), 0.08, tire)
    s.bar((0.4, 0.85), (0.36, 1.02), 0.05, tire)
    s.bar((0.28, 1.02), (0.5, 1.05), 0.05, tire)
    s.disc(-0.05, 0.32, 0.1, shade(tire, 150))


def _bicycle_end(s: Sprite, frame: Color, tire: Color, away: bool) -> None:
    s.rect(-0.045, 0.0, 0.045, 0.7, tire)
    s.bar((0, 0.35), (0, 1.0), 0.07, frame)
    s.rect(-0.3, 1.0, 0.3, 1.06, tire)
    if away:
        s.rect(-0.11, 0.9, 0.11, 0.98, tire)
        s.rect(-0.06, 0.6, 0.06, 0.72, (206, 36, 34))
    else:
        s.disc(0, 0.9, 0.07, (250, 246, 226))


def _motorcycle(s: Sprite, frame: Color, tire: Color, between: Color) -> None:
    for u in (-0.68, 0.7):
        s.disc(u, 0.32, 0.33, tire)
        s.disc(u, 0.32, 0.19, mix(between, (150, 150, 150), 0.5))
    s.poly([(-0.45, 0.3), (-0.3, 0.62), (0.3, 0.62), (0.4, 0.3), (0.1, 0.2), (-0.25, 0.2)], (62, 62, 66))
    s.poly(
        [(-0.95, 0.8), (-0.85, 0.66), (-0.3, 0.55), (0.35, 0.55), (0.55, 0.8), (0.42, 0.95), (0.05, 0.95), (-0.1, 0.8)],
        frame,
    )
    s.poly([(-0.85, 0.82), (-0.1, 0.8), (-0.1, 0.72), (-0.7, 0.7)], tire)
    s.poly([(0.4, 0.95), (0.6, 1.2), (0.68, 0.95), (0.62, 0.7)], shade(frame, 120))
    s.bar((0.52, 0.85), (0.7, 0.32), 0.09, (140, 140, 144))
    s.bar((-0.1, 0.28), (-0.95, 0.36), 0.11, (170, 170, 174))
    s.bar((0.3, 1.06), (0.52, 1.0), 0.06, tire)
    s.poly([(0.45, 0.68), (0.95, 0.6), (0.9, 0.7), (0.6, 0.76)], frame)
    s.disc(0.66, 0.88, 0.09, (250, 246, 226))


def _motorcycle_end(s: Sprite, frame: Color, tire: Color, away: bool) -> None:
    s.rect(-0.1, 0.0, 0.1, 0.62, tire)
    s.poly([(-0.2, 0.4), (-0.3, 0.75), (-0.18, 1.0), (0.18, 1.0), (0.3, 0.75), (0.2, 0.4)], frame)
    s.bar((-0.42, 1.02), (0.42, 1.02), 0.07, tire)
    for side in (-1, 1):
        s.bar((side * 0.42, 1.02), (side * 0.46, 1.2), 0.04, tire)
        s.rect(side * 0.56, 1.15, side * 0.38, 1.27, tire)
    if away:
        s.rect(-0.16, 0.66, 0.16, 0.78, (206, 36, 34))
        s.rect(-0.12, 0.42, 0.12, 0.54, (232, 230, 220))
        s.bar((0.26, 0.3), (0.26, 0.45), 0.12, (170, 170, 174))
    else:
        s.disc(0, 0.84, 0.13, (250, 246, 226))


def _rider(s: Sprite, clothes: _Clothes, seat: tuple[float, float]) -> None:
    """Leaning forward, one leg up, hands at the bar."""
    u, v = seat
    knee, foot, hand, neck = (u + 0.42, v - 0.22), (u + 0.22, v - 0.66), (0.38, v + 0.1), (u + 0.3, v + 0.55)
    far_knee = (u + 0.36, v - 0.32)
    s.bar((u, v), far_knee, 0.17, shade(clothes.trousers, 75), RIDER)
    s.bar(far_knee, (u + 0.08, v - 0.72), 0.13, shade(clothes.trousers, 75), RIDER)
    s.poly(
        [(u - 0.17, v - 0.06), (u + 0.17, v - 0.08), (neck[0] + 0.14, neck[1]), (neck[0] - 0.18, neck[1] + 0.03)],
        clothes.top,
        RIDER,
    )
    s.bar((u, v), knee, 0.19, clothes.trousers, RIDER)
    s.bar(knee, foot, 0.15, clothes.trousers, RIDER)
    s.rect(foot[0] - 0.07, foot[1] - 0.07, foot[0] + 0.2, foot[1] + 0.04, (40, 36, 36), RIDER)
    elbow = (neck[0] + 0.12, neck[1] - 0.3)
    s.bar((neck[0], neck[1] - 0.06), elbow, 0.13, shade(clothes.top, 82), RIDER)
    s.bar(elbow, hand, 0.1, shade(clothes.top, 82), RIDER)
    s.ball(neck[0] + 0.08, neck[1] + 0.17, 0.13, clothes.head if clothes.full_face else clothes.skin, RIDER)
    s.rect(neck[0] - 0.06, neck[1] + 0.17, neck[0] + 0.2, neck[1] + 0.3, clothes.head, RIDER)
    s.ball(neck[0] + 0.05, neck[1] + 0.22, 0.13, clothes.head, RIDER)


def _rider_end(s: Sprite, clothes: _Clothes, seat: float, away: bool) -> None:
    """From the front or from behind: knees out, arms to the bar."""
    for side in (-1, 1):
        s.bar((side * 0.13, seat - 0.02), (side * 0.24, seat - 0.3), 0.17, clothes.trousers, RIDER)
        s.bar((side * 0.24, seat - 0.3), (side * 0.17, seat - 0.68), 0.13, clothes.trousers, RIDER)
        s.bar((side * 0.2, seat + 0.5), (side * 0.36, seat + 0.12), 0.13, shade(clothes.top, 85), RIDER)
    s.poly([(-0.19, seat - 0.06), (-0.25, seat + 0.55), (0.25, seat + 0.55), (0.19, seat - 0.06)], clothes.top, RIDER)
    s.rect(-0.06, seat + 0.52, 0.06, seat + 0.62, clothes.skin, RIDER)
    covered = away or clothes.full_face
    s.ball(0, seat + 0.74, 0.14, clothes.head if covered else clothes.skin, RIDER)
    if not covered:
        s.rect(-0.13, seat + 0.76, 0.13, seat + 0.88, clothes.head, RIDER)
    elif not away:
        s.rect(-0.1, seat + 0.7, 0.1, seat + 0.8, (34, 38, 44), RIDER)
