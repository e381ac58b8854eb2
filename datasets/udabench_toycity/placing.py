"""Where things stand: traffic by lane, parked vehicles, people, trees, street furniture. In a lane nothing overlaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from udabench_toycity.car import PROFILES
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.street import OPEN, Side, Street
from udabench_toycity.thing import Thing

Spans = Sequence[tuple[float, float]]
_DRIVING = {"car": 0.74, "truck": 0.1, "bus": 0.09, "motorcyclist": 0.04, "cyclist": 0.04}
_FAR_DRIVING = {"car": 0.96, "truck": 0.03, "bus": 0.01}
_PARKED = {"car": 0.84, "truck": 0.03, "motorcycle": 0.05, "bicycle": 0.08}
_VIEW = 95.0
"""Metres to which traffic and people are placed; farther ones are smaller than a few pixels."""


def place_things(dice: Dice, street: Street, style: Style) -> list[Thing]:
    """Everything that stands in the street, in no order."""
    blocked = [] if street.crossing is None else [(street.crossing - 2.0, street.crossing + 7.0)]
    close = list(_close(dice, street))
    things = [*close, *_traffic(dice, street, blocked, close), *_crossing(dice, street, style)]
    for sign, side in zip((-1, 1), street.sides, strict=True):
        gaps = [*street.gaps(0 if sign < 0 else 1), *blocked]
        things += _parked(dice, side, sign, gaps)
        things += _people(dice, side, sign, style)
        things += _trees(dice, street, side, sign, gaps)
        things += _furniture(dice, side, sign)
    return [thing for thing in things if not _astray(thing, street)]


def _astray(thing: Thing, street: Street) -> bool:
    """Whether it would stand in the mouth of a side street."""
    which = 1 if thing.x > 0 else 0
    outside = abs(thing.x) > street.sides[which].kerb
    return outside and thing.kind not in ("person", "traffic_light") and not _free(thing.z, 0.5, street.gaps(which))


def place_yards(dice: Dice, street: Street, style: Style) -> list[Thing]:
    """Trees behind walls, fences and hedges, and at the street's far end."""
    things = [
        Thing(
            "tree", dice.between(-30, 30), dice.between(190, 235), width=dice.between(8, 14), height=dice.between(7, 11)
        )
        for _ in range(4)
    ]
    for sign, side, segments in zip((-1, 1), street.sides, street.frontages, strict=True):
        for segment in segments:
            if segment.kind not in OPEN[:3] or segment.start > 90:
                continue
            for _ in range(int((segment.end - segment.start) / 6 * (0.4 + 0.6 * street.green))):
                x = sign * (side.front + dice.between(2.0, 9.0))
                z = dice.between(max(segment.start, 6.0), segment.end + 1)
                width = dice.between(3.5, 6.5)
                things.append(Thing("tree", x, z, width=width, height=width + dice.between(0.0, 2.5)))
    return things


def _free(z: float, length: float, blocked: Spans) -> bool:
    return all(z + length < low or z > high for low, high in blocked)


def _traffic(dice: Dice, street: Street, blocked: Spans, close: Sequence[Thing]) -> Iterator[Thing]:
    """Vehicles by lane, one after the other; ``blocked`` stretches and what is ``close`` already are left free."""
    lanes = [(x, -1, dice.between(6.5, 26.0)) for x in street.oncoming]
    lanes.append((street.own, 1, dice.between(9.0, 34.0)))
    for x, turn, z in lanes:
        taken = [*blocked, *((t.z - 1.0, t.z + 2.5) for t in close if abs(t.x - x) < street.lane / 2)]
        if street.tram == x and dice.chance(0.65):
            train = Thing("train", x, dice.between(9.0, 26.0), width=2.4, length=24.0, height=3.3, turn=turn)
            taken.append((train.z - 3.0, train.z + train.length + 5.0))
            yield train
        yield from _lane(dice, x, turn, z, taken)


def _lane(dice: Dice, x: float, turn: int, z: float, blocked: Spans) -> Iterator[Thing]:
    spread = dice.between(6.0, 34.0)
    while z < _VIEW:
        kinds = _DRIVING if z < 32 else _FAR_DRIVING
        thing = _vehicle(dice, dice.weighted(kinds), x + dice.between(-0.2, 0.2), z, turn)
        if _free(z - 1, thing.length + 2, blocked):
            yield thing
        z += thing.length + dice.between(3.0, spread)


def _vehicle(dice: Dice, kind: str, x: float, z: float, turn: int) -> Thing:
    if kind == "car":
        variant = dice.pick((0, 0, 1, 1, 2, 3))
        profile = PROFILES[variant]
        return Thing(kind, x, z, dice.between(1.72, 1.85), profile.length, profile.top, turn, variant)
    if kind == "truck":
        return Thing(kind, x, z, dice.between(2.3, 2.5), dice.between(6.5, 9.5), dice.between(3.0, 3.7), turn)
    if kind == "bus":
        return Thing(kind, x, z, dice.between(2.45, 2.55), dice.between(10.0, 12.5), dice.between(2.95, 3.2), turn)
    return Thing(kind, x, z, 0.7, 1.9, 1.7, turn, dice.pick((0, 0, 1)))


def _parked(dice: Dice, side: Side, sign: int, blocked: Spans) -> Iterator[Thing]:
    if side.parking < 1:
        return
    z, density = dice.between(5.5, 14.0), dice.between(0.35, 0.95)
    x = sign * (side.edge + side.parking / 2)
    while z < _VIEW:
        kind = dice.weighted(_PARKED)
        thing = _vehicle(dice, kind, x, z, dice.pick((sign, sign, sign, -sign)))
        if dice.chance(density) and _free(z, thing.length, blocked):
            if kind in ("motorcycle", "bicycle"):
                yield from _row(dice, kind, x, z)
            else:
                yield thing
        z += max(thing.length, 2.5) + dice.between(0.7, 1.6)


def _row(dice: Dice, kind: str, x: float, z: float) -> Iterator[Thing]:
    for i in range(dice.whole(1, 3)):
        turn = dice.sign()
        yield Thing(kind, x + dice.between(-0.3, 0.3), z + 0.9 * i, 0.7, 0.6, 1.0, turn, dice.pick((1, 2, 3)))


def _close(dice: Dice, street: Street) -> Iterator[Thing]:
    """A two-wheeler close by: they are rare and thin, so that far ones teach nothing."""
    right = street.sides[1]
    if dice.chance(0.33):
        kind = dice.weighted({"cyclist": 0.55, "motorcyclist": 0.45})
        x = right.edge - 0.55 if kind == "cyclist" else street.own + dice.between(-0.6, 0.6)
        yield Thing(kind, x, dice.near(6.5, 14.0), 0.7, 0.6, 1.75, 1, dice.pick((0, 1, 2)))
    if dice.chance(0.17):
        kind = dice.weighted({"cyclist": 0.5, "motorcyclist": 0.5})
        x = street.oncoming[0] + dice.between(0.2, 0.9)
        yield Thing(kind, x, dice.near(7.5, 15.0), 0.7, 0.6, 1.75, -1, dice.pick((0, 1, 2)))
    if dice.chance(0.42):
        side, sign = dice.pick(((street.sides[0], -1), (right, 1)))
        kind = dice.weighted({"bicycle": 0.65, "motorcycle": 0.35})
        x = sign * (side.kerb + side.verge + 0.7)
        z = max(dice.near(7.0, 16.0), abs(x) * 2.6)
        for i in range(dice.whole(1, 4)):
            yield Thing(kind, x + 0.25 * i * sign, z + 0.8 * i, 0.7, 0.6, 1.0, dice.sign(), dice.pick((1, 2, 3)))


def _crossing(dice: Dice, street: Street, style: Style) -> Iterator[Thing]:
    """People, riders or a car on the zebra crossing, and its traffic lights."""
    z = street.crossing
    if z is None:
        return
    left, right = -street.sides[0].edge, street.sides[1].edge
    for _ in range(int(dice.between(0, 3.6) * style.people)):
        yield _walker(dice, dice.between(left, right), z + dice.between(0.3, 3.0), across=True)
    if dice.chance(0.4):
        kind = dice.weighted({"cyclist": 0.6, "motorcyclist": 0.4})
        yield Thing(kind, dice.between(left, right) * 0.7, z + 2.0, 1.8, 0.5, 1.75, dice.sign(), 3)
    if dice.chance(0.3):
        variant = dice.whole(0, 3)
        profile = PROFILES[variant]
        yield Thing("car", dice.between(left, right), z + 4.2, profile.length, 1.7, profile.top, 0, variant)
    if dice.chance(0.85):
        for sign, side in zip((-1, 1), street.sides, strict=True):
            yield Thing("traffic_light", sign * (side.kerb + 0.5), z - 0.6, 0.3, 0.3, 3.6, -sign, dice.whole(0, 1))


def _walker(dice: Dice, x: float, z: float, across: bool) -> Thing:
    height = dice.between(1.55, 1.88) if dice.chance(0.85) else dice.between(1.05, 1.4)
    return Thing("person", x, z, 0.5, 0.4, height, dice.sign(), 1 if across else 0)


def _people(dice: Dice, side: Side, sign: int, style: Style) -> Iterator[Thing]:
    low, high = side.path
    for _ in range(int(dice.between(0.0, 5.0) * style.people)):
        x, z = sign * dice.between(low, max(low, high)), dice.near(6.5, 32.0)
        for i in range(2 if dice.chance(0.3) else 1):
            yield _walker(dice, x + 0.62 * i * sign, z + 0.2 * i, across=dice.chance(0.25))


def _trees(dice: Dice, street: Street, side: Side, sign: int, gaps: Spans) -> Iterator[Thing]:
    if dice.chance(0.3 + 0.65 * street.green):
        x = sign * (side.kerb + (side.verge / 2 if side.verge else 0.7))
        z, step = dice.between(6.0, 18.0), dice.between(8.0, 15.0)
        while z < 110:
            width = dice.between(3.0, 5.4)
            if _free(z - 1, 2, gaps):
                yield Thing("tree", x, z, width=width, height=width * 0.95 + dice.between(1.9, 3.0))
            z += step * dice.between(0.8, 1.3)
    if side.garden > 1:
        for _ in range(dice.whole(2, 9)):
            z = dice.near(10.0, 90.0)
            x = sign * (side.front - side.garden * dice.between(0.2, 0.8))
            if _free(z, 1, gaps):
                width = dice.between(0.7, 1.9)
                yield Thing("bush", x, z, width=width, height=width * dice.between(0.7, 1.0))


def _furniture(dice: Dice, side: Side, sign: int) -> Iterator[Thing]:
    x = sign * (side.kerb + 0.45)
    if dice.chance(0.75):
        z, step, height = dice.between(8.0, 24.0), dice.between(18.0, 30.0), dice.between(4.8, 7.0)
        while z < 75:
            yield Thing("lamp", x, z, 0.3, 0.3, height, -sign)
            z += step
    for _ in range(dice.whole(0, 3)):
        variant = dice.pick((0, 1, 2, 3, 4, 5, 1, 3))
        height = dice.between(3.0, 3.8) if variant == 5 else dice.between(2.1, 2.6)
        yield Thing("sign", x + sign * dice.between(0.0, 0.5), dice.near(8.0, 45.0), 0.3, 0.3, height, variant=variant)
    if dice.chance(0.25):
        z = dice.between(7.0, 20.0)
        for i in range(dice.whole(3, 8)):
            yield Thing("bollard", sign * (side.kerb + 0.3), z + 1.8 * i, 0.2, 0.2, 0.95)
