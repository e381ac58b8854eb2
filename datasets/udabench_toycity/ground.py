"""The ground: road, markings, kerbs, sidewalks, grass, rails, side streets and the shadows on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from udabench_toycity.camera import HEIGHT, WIDTH, Air, Camera, shade
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.plane import Floats, Inks, Planes, clearness, fade, paint, texture_factor
from udabench_toycity.raster import Raster
from udabench_toycity.street import FAR, Street
from udabench_toycity.texture import ASPHALT, GRASS, PAVING

SLANT = 0.55
"""Metres that a shadow reaches sideways, for every metre of height."""
_STEP = 0.05
_REACH = 45.0
_ROAD, _WALK, _TERRAIN = 0, 1, 9
_DASH, _ZEBRA, _LEFT, _RIGHT = 1, 2, 4, 8
"""Bits of a row's variant: a dash is painted, a crossing, a side street joins."""


class _Zones(NamedTuple):
    road: int
    parking: int
    mark: int
    kerb: int
    walk: int
    grass: int
    rail: int


def paint_ground(
    planes: Planes, camera: Camera, air: Air, street: Street, style: Style, dice: Dice, shadow: npt.NDArray[np.uint8]
) -> None:
    """Everything below the horizon. ``shadow``: H W, 255 where the sun shines."""
    top = int(camera.horizon) + 1
    inks, zones = _inks(dice, style)
    z: Floats = np.float32(camera.focal * camera.height) / (
        np.arange(top, HEIGHT, dtype=np.float32) + np.float32(0.5 - camera.horizon)
    )
    z = np.minimum(z, np.float32(4 * FAR))[:, None]
    columns = np.arange(WIDTH, dtype=np.float32)[None, :] + np.float32(0.5 - camera.center)
    x: Floats = columns * (z / np.float32(camera.focal))
    at = ((x + np.float32(_REACH)) / np.float32(_STEP)).astype(np.int32)
    np.clip(at, 0, int(2 * _REACH / _STEP) - 1, out=at)
    table = _table(street, zones)
    zone = table.reshape(-1).take(_variants(street, z) * table.shape[1] + at)
    factor = texture_factor(inks, zone, x + np.float32(64), z, fade(style.texture, z))
    light = np.where(_front_shade(street, style, x, z), np.minimum(shadow[top:], cast_light(style)), shadow[top:])
    factor = ((factor.astype(np.uint32) * light) >> 8).astype(np.uint16)
    paint(planes[:, top:], zone, inks, factor, clearness(air, z), air)


def cast_light(style: Style) -> int:
    """What of the light is left in a shadow, of 255."""
    return int(255 * (1 - style.sun))


def _front_shade(street: Street, style: Style, x: Floats, z: Floats) -> npt.NDArray[np.bool_]:
    """Where the houses on the sun's side throw their shadow: as far as they are high there."""
    which = 0 if style.sun_side > 0 else 1
    segments = street.frontages[which]
    at = np.searchsorted(np.array([s.start for s in segments], np.float32), z, "right") - 1
    height = np.array([s.height for s in segments], np.float32).take(np.maximum(at, 0))
    reach = np.float32(street.sides[which].front) - np.float32(SLANT) * height
    return x * np.float32(-style.sun_side) > reach


def _inks(dice: Dice, style: Style) -> tuple[Inks, _Zones]:
    inks = Inks()
    road = style.color(dice, "road")
    return inks, _Zones(
        road=inks.add(road, _ROAD, ASPHALT),
        parking=inks.add(shade(road, dice.whole(92, 112)), _ROAD, ASPHALT),
        mark=inks.add(style.color(dice, "mark"), _ROAD, ASPHALT),
        kerb=inks.add(style.color(dice, "kerb"), _WALK, PAVING),
        walk=inks.add(style.color(dice, "walk"), _WALK, PAVING),
        grass=inks.add(style.color(dice, "grass"), _TERRAIN, GRASS),
        rail=inks.add(style.color(dice, "rail"), _ROAD, ASPHALT),
    )


def _variants(street: Street, z: Floats) -> npt.NDArray[np.int32]:
    """Each row's variant."""
    rows = np.zeros(z.shape, np.int32)
    rows[np.remainder(z, np.float32(9.0)) < 3.5] |= _DASH
    if street.crossing is not None:
        rows[(z > street.crossing) & (z < street.crossing + 3.5)] |= _ZEBRA
    for side, bit in ((0, _LEFT), (1, _RIGHT)):
        for start, end in street.gaps(side):
            rows[(z > start + 1) & (z < end - 1)] |= bit
    return rows


def _table(street: Street, zones: _Zones) -> npt.NDArray[np.intp]:
    """16 n: zone by variant and place across the street."""
    count = int(2 * _REACH / _STEP)
    plain = np.full(count, zones.road, np.intp)

    def span(row: npt.NDArray[np.intp], low: float, high: float, zone: int) -> None:
        row[max(0, int((low + _REACH) / _STEP)) : max(0, int((high + _REACH) / _STEP))] = zone

    for side, sign in zip(street.sides, (-1, 1), strict=True):
        for low, high, zone in _strips(side.edge, side.kerb, side.verge, side.walk, side.front, zones):
            span(plain, min(sign * low, sign * high), max(sign * low, sign * high), zone)
    table = np.repeat(plain[None], 16, 0)
    for variant in range(16):
        row = table[variant]
        if variant & _LEFT:
            span(row, -_REACH, -street.sides[0].edge, zones.road)
        if variant & _RIGHT:
            span(row, street.sides[1].edge, _REACH, zones.road)
        _markings(lambda low, high, zone, row=row: span(row, low, high, zone), street, zones, variant)  # type: ignore[misc]
    return table


def _strips(
    edge: float, kerb: float, verge: float, walk: float, front: float, zones: _Zones
) -> list[tuple[float, float, int]]:
    """One side from the lanes outwards."""
    grass = kerb + verge
    strips = [
        (edge, kerb, zones.parking),
        (edge - 0.05, edge + 0.07, zones.mark if kerb - edge > 1 else zones.parking),
        (kerb, kerb + 0.2, zones.kerb),
        (kerb + 0.2, grass, zones.grass),
        (max(grass, kerb + 0.2), grass + walk, zones.walk),
        (grass + walk, _REACH, zones.grass if front - grass - walk > 0.5 else zones.walk),
        (front + 0.5, _REACH, zones.grass),
    ]
    return [strip for strip in strips if strip[0] < strip[1]]


def _markings(span: Callable[[float, float, int], None], street: Street, zones: _Zones, variant: int) -> None:
    if street.tram is not None:
        for rail in (-0.72, 0.72):
            span(street.tram + rail - 0.08, street.tram + rail + 0.08, zones.rail)
    middle = street.oncoming[0] + street.lane / 2
    if variant & _ZEBRA:
        low, high = -street.sides[0].edge + 0.4, street.sides[1].edge - 0.4
        for i in range(int((high - low) / 1.0)):
            span(low + i, low + i + 0.5, zones.mark)
        return
    if variant & (_LEFT | _RIGHT):
        return
    if variant & _DASH or not street.dashed:
        span(middle - 0.08, middle + 0.08, zones.mark)
    for lane in street.oncoming[1:]:
        if variant & _DASH:
            span(lane + street.lane / 2 - 0.07, lane + street.lane / 2 + 0.07, zones.mark)


class Shadows:
    """Collects shadows on the ground before it is painted."""

    def __init__(self, camera: Camera, style: Style) -> None:
        self.raster = Raster(np.uint8, 255)
        self._camera = camera
        self._cast = cast_light(style)
        self._contact = min(self._cast, 150)
        self._slant = SLANT * style.sun_side

    def _ground(self, x: float, z: float) -> tuple[int, int]:
        return self._camera.point(x, 0.0, max(z, 2.0))

    def block(self, x: float, z: float, width: float, length: float, height: float) -> None:
        """The shadow of a box, and the darkness right under it."""
        low, high, far = x - width / 2, x + width / 2, z + length
        shift = self._slant * height
        lean = (high if shift > 0 else low) + shift
        base, lag = high if shift > 0 else low, 0.15 * height
        g = self._ground
        self.raster.polygon([g(base, z), g(lean, z + lag), g(lean, far + lag), g(base, far)], self._cast)
        corners = [g(low - 0.1, z - 0.15), g(high + 0.1, z - 0.15), g(high + 0.1, far), g(low - 0.1, far)]
        self.raster.polygon(corners, self._contact)

    def blob(self, x: float, z: float, radius: float, height: float, contact: bool = False) -> None:
        """The shadow of something round."""
        x += self._slant * height
        (x0, y0), (x1, y1) = self._ground(x - radius, z + radius), self._ground(x + radius, z - radius)
        self.raster.ellipse(x0, y0, max(x0, x1), max(y0, y1), self._contact if contact else self._cast)
