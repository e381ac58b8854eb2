"""A street's plan: its cross-section, and what stands along both sides."""

from __future__ import annotations

from dataclasses import dataclass

from udabench_toycity.dice import Dice
from udabench_toycity.look import Style

FAR = 240.0
"""Metres to which streets are built."""
OPEN = ("wall", "fence", "hedge", "gap")
"""Frontages over which one sees the yards."""


@dataclass(frozen=True)
class Side:
    """One side of the street; distances in metres from the camera's axis, outwards."""

    edge: float
    """Where the driving lanes end."""
    parking: float
    verge: float
    walk: float
    garden: float

    @property
    def kerb(self) -> float:
        return self.edge + self.parking

    @property
    def path(self) -> tuple[float, float]:
        """Where people walk."""
        return self.kerb + self.verge + 0.4, self.kerb + self.verge + self.walk - 0.3

    @property
    def front(self) -> float:
        """Where houses and fences stand."""
        return self.kerb + self.verge + self.walk + self.garden


@dataclass(frozen=True)
class Segment:
    """A piece of frontage from ``start`` to ``end`` metres ahead."""

    start: float
    end: float
    kind: str
    height: float
    ground_floor: float = 0.0
    floor: float = 0.0
    pitch: float = 0.0
    glazing: float = 0.0
    brick: bool = False


@dataclass(frozen=True)
class Street:
    """The plan. ``sides`` and ``frontages`` are left (sign -1), then right (+1)."""

    lane: float
    own: float
    """Centre of the camera's own lane."""
    oncoming: tuple[float, ...]
    """Centres of the lanes on the left."""
    sides: tuple[Side, Side]
    frontages: tuple[tuple[Segment, ...], tuple[Segment, ...]]
    tram: float | None
    """Centre of the rails."""
    crossing: float | None
    """Distance of the zebra crossing."""
    dashed: bool
    green: float
    """How leafy the street is, 0 to 1."""

    def gaps(self, side: int) -> list[tuple[float, float]]:
        """Where side streets join."""
        return [(s.start, s.end) for s in self.frontages[side] if s.kind == "gap"]


def draw_street(dice: Dice, style: Style) -> Street:
    lane = dice.between(3.2, 3.7)
    shift = dice.between(-0.4, 0.4)
    lanes = 2 if dice.chance(0.25) else 1
    oncoming = tuple(shift - lane * (i + 1) for i in range(lanes))
    green = dice.unit()
    sides = (_side(dice, lane * (lanes + 0.5) - shift, green), _side(dice, lane * 0.5 + shift, green))
    tram = None
    if dice.chance(0.26):
        tram = dice.pick((oncoming[0], shift))
    return Street(
        lane=lane,
        own=shift,
        oncoming=oncoming,
        sides=sides,
        frontages=(_frontage(dice, green), _frontage(dice, green)),
        tram=tram,
        crossing=dice.between(10.0, 25.0) if dice.chance(0.5) else None,
        dashed=dice.chance(0.7),
        green=min(1.0, green * style.trees),
    )


def _side(dice: Dice, edge: float, green: float) -> Side:
    return Side(
        edge=edge,
        parking=dice.between(2.0, 2.4) if dice.chance(0.6) else 0.25,
        verge=dice.between(1.2, 2.6) if dice.chance(0.2 + 0.3 * green) else 0.0,
        walk=dice.between(1.8, 4.2),
        garden=dice.between(1.0, 4.5) if dice.chance(0.15 + 0.4 * green) else 0.0,
    )


def _frontage(dice: Dice, green: float) -> tuple[Segment, ...]:
    """Segments from before the camera to FAR."""
    weights = {
        "building": 1.0 - 0.35 * green,
        "wall": 0.2,
        "fence": 0.2,
        "hedge": 0.04 + 0.1 * green,
        "gap": 0.09,
    }
    segments: list[Segment] = []
    z = dice.between(-6.0, 2.0)
    while z < FAR:
        kind = dice.weighted(weights)
        if segments and kind == "gap" and segments[-1].kind == "gap":
            kind = "building"
        segment = _house(dice, z) if kind == "building" else _open(dice, z, kind)
        segments.append(segment)
        z = segment.end
    return tuple(segments)


def _house(dice: Dice, z: float) -> Segment:
    floor = dice.between(2.8, 3.4)
    ground_floor = dice.between(3.2, 4.4)
    return Segment(
        start=z,
        end=z + dice.between(9.0, 24.0),
        kind="building",
        height=ground_floor + floor * dice.whole(1, 5) + dice.between(0.6, 1.6),
        ground_floor=ground_floor,
        floor=floor,
        pitch=dice.between(1.9, 3.4),
        glazing=dice.between(0.35, 0.6),
        brick=dice.chance(0.35),
    )


def _open(dice: Dice, z: float, kind: str) -> Segment:
    if kind == "gap":
        return Segment(z, z + dice.between(7.0, 11.0), kind, 0.0)
    low, high = {"wall": (1.9, 3.6), "fence": (1.6, 2.7), "hedge": (1.0, 2.2)}[kind]
    end = z + dice.between(8.0, 22.0)
    return Segment(z, end, kind, dice.between(low, high), pitch=dice.between(0.3, 0.6), brick=dice.chance(0.6))


def draw_backs(dice: Dice) -> tuple[Segment, ...]:
    """The houses behind a front, with the sky between them."""
    segments: list[Segment] = []
    z = dice.between(0.0, 10.0)
    while z < FAR:
        segment = _house(dice, z) if dice.chance(0.65) else Segment(z, z + dice.between(6.0, 20.0), "gap", 0.0)
        segments.append(segment)
        z = segment.end
    return tuple(segments)
