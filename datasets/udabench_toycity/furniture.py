"""Street furniture: lamps, traffic lights, signs, bollards."""

from __future__ import annotations

from udabench_toycity.camera import Color, shade
from udabench_toycity.canvas import Canvas, Sprite
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.thing import Thing

POLE, LIGHT, SIGN = 5, 6, 7
_RED, _YELLOW, _BLUE, _WHITE = (206, 30, 34), (244, 196, 36), (28, 86, 190), (240, 240, 236)
_LAMPS = ((236, 44, 40), (250, 184, 48), (60, 224, 120))
_DIM = (58, 50, 46)


def draw_lamp(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    """``turn``: the side to which the arm reaches."""
    s = Sprite(canvas, thing.x, thing.z, POLE, squeeze=thing.turn)
    color, h = style.color(dice, "pole"), thing.height
    s.rect(-0.17, 0, 0.17, 1.0, shade(color, 90))
    s.bar((0, 0), (0, h), 0.22, color)
    s.bar((0, h), (1.7, h + 0.35), 0.14, color)
    s.rect(1.3, h + 0.28, 2.1, h + 0.45, shade(color, 130))


def draw_bollard(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    s = Sprite(canvas, thing.x, thing.z, POLE)
    color = style.color(dice, "pole")
    s.rect(-0.12, 0, 0.12, thing.height, color)
    s.rect(-0.12, thing.height - 0.25, 0.12, thing.height - 0.12, shade(color, 150))


def draw_traffic_light(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    """``variant`` 0: on its pole; 1: a second one on an arm over the road."""
    s = Sprite(canvas, thing.x, thing.z, POLE, squeeze=thing.turn)
    color, case, lit = style.color(dice, "pole"), style.color(dice, "case"), dice.whole(0, 2)
    if thing.variant:
        s.bar((0, 0), (0, 5.9), 0.2, color)
        s.bar((0, 5.8), (3.6, 5.8), 0.14, color)
        _case(s, 3.4, 5.0, case, lit)
    else:
        s.bar((0, 0), (0, 3.7), 0.2, color)
    _case(s, 0.0, 2.5, case, lit)


def _case(s: Sprite, u: float, v: float, case: Color, lit: int) -> None:
    s.rect(u - 0.26, v, u + 0.26, v + 1.25, case, LIGHT)
    for i, lamp in enumerate(_LAMPS):
        s.ball(u, v + 1.02 - 0.4 * i, 0.16, lamp if i == lit else _DIM, LIGHT)


def draw_sign(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    """``variant`` picks the sign; the last is a guide board over the sidewalk."""
    s = Sprite(canvas, thing.x, thing.z, POLE)
    color, h = style.color(dice, "pole"), thing.height
    if thing.variant == 5:
        _guide(s, color, h)
        return
    s.bar((0, 0), (0, h + 0.3), 0.14, color)
    _BOARDS[thing.variant](s, h)


def _stop(s: Sprite, h: float) -> None:
    s.ball(0, h, 0.4, _RED, SIGN)
    s.rect(-0.28, h - 0.07, 0.28, h + 0.07, _WHITE, SIGN)


def _limit(s: Sprite, h: float) -> None:
    s.ball(0, h, 0.4, _RED, SIGN)
    s.ball(0, h, 0.29, _WHITE, SIGN)
    s.rect(-0.13, h - 0.14, 0.13, h + 0.14, (70, 70, 74), SIGN)


def _danger(s: Sprite, h: float) -> None:
    s.poly([(-0.48, h - 0.36), (0.48, h - 0.36), (0, h + 0.46)], _RED, SIGN)
    s.poly([(-0.28, h - 0.25), (0.28, h - 0.25), (0, h + 0.22)], _WHITE, SIGN)


def _order(s: Sprite, h: float) -> None:
    s.ball(0, h, 0.4, _BLUE, SIGN)
    s.bar((0, h - 0.22), (0, h + 0.24), 0.09, _WHITE, SIGN)


def _priority(s: Sprite, h: float) -> None:
    s.poly([(-0.45, h), (0, h + 0.45), (0.45, h), (0, h - 0.45)], _WHITE, SIGN)
    s.poly([(-0.32, h), (0, h + 0.32), (0.32, h), (0, h - 0.32)], _YELLOW, SIGN)


_BOARDS = (_stop, _limit, _danger, _order, _priority)


def _guide(s: Sprite, color: Color, h: float) -> None:
    for u in (-0.7, 0.7):
        s.bar((u, 0), (u, h), 0.16, color)
    s.rect(-1.2, h - 0.1, 1.2, h + 0.9, _BLUE, SIGN)
    s.rect(-0.95, h + 0.55, 0.75, h + 0.68, _WHITE, SIGN)
    s.rect(-0.95, h + 0.2, 0.35, h + 0.33, _WHITE, SIGN)
