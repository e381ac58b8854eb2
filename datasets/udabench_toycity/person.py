"""People on foot."""

from __future__ import annotations

from udabench_toycity.camera import shade
from udabench_toycity.canvas import Canvas, Sprite
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.thing import Thing

PERSON = 11
_HEIGHT = 1.75
"""Metres; the figure is drawn for this height and scaled to others."""


def draw_person(canvas: Canvas, thing: Thing, style: Style, dice: Dice) -> None:
    """``variant`` 0: from the front or behind; 1: walking across."""
    s = Sprite(canvas, thing.x, thing.z, PERSON, squeeze=thing.turn, size=thing.height / _HEIGHT)
    h = _HEIGHT
    top, trousers, skin, hair = (style.color(dice, name) for name in ("top", "trousers", "skin", "hair"))
    hip, neck, away = 0.48 * h, 0.82 * h, dice.chance(0.5)
    stride = dice.between(0.05, 0.14) if thing.variant == 0 else dice.between(0.15, 0.32)
    for side, color in ((-1, shade(trousers, 80)), (1, trousers)):
        knee = (side * stride * 0.6 + 0.03 * thing.variant, 0.26 * h)
        s.bar((side * 0.07, hip), knee, 0.17, color)
        s.bar(knee, (side * stride, 0.04), 0.13, color)
        s.rect(side * stride - 0.07, 0.0, side * stride + (0.16 if thing.variant else 0.07), 0.08, (42, 38, 36))
    swing = stride * 0.8
    wide = 0.23 if thing.variant == 0 else 0.16
    s.bar((-wide, neck - 0.07), (-wide - 0.06 - swing * 0.4, hip + 0.02), 0.12, shade(top, 78))
    s.poly([(-wide * 0.8, hip - 0.06), (-wide, neck), (wide, neck), (wide * 0.8, hip - 0.06)], top)
    s.bar((wide, neck - 0.07), (wide + 0.06 + swing * 0.4, hip + 0.02), 0.12, shade(top, 85))
    if s.scale > 18:
        s.ball(-wide - 0.06 - swing * 0.4, hip, 0.05, skin)
        s.ball(wide + 0.06 + swing * 0.4, hip, 0.05, skin)
    s.rect(-0.05, neck, 0.05, neck + 0.08, shade(skin, 85))
    s.ball(0, h - 0.13, 0.125, skin)
    s.ball(0, h - 0.07, 0.115, hair)
    if away and thing.variant == 0:
        s.ball(0, h - 0.13, 0.12, hair)
    elif s.scale > 18:
        s.ball(0.03 * thing.variant, h - 0.17, 0.095, skin)
