"""The fronts of the street: houses, walls, fences, hedges. Their depth depends on the picture's column only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from udabench_toycity.camera import HEIGHT, WIDTH, Air, Camera, Color, shade
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.plane import Floats, Inks, Planes, clearness, fade, paint, texture_factor
from udabench_toycity.street import Segment
from udabench_toycity.texture import BRICK, LEAF, PLASTER, SIDE, patches

_BUILDING, _WALL, _FENCE, _VEGETATION = 2, 3, 4, 8
_ZONES = 8
"""Zones a segment: front, trim, three kinds of window, shop, door, and one that is never used."""


def segment_inks(segments: Sequence[Segment], style: Style, dice: Dice, light: int) -> Inks:
    """Eight zones for every segment, in order; ``light``: percent of brightness of this side of the street."""
    inks = Inks()
    inks.see_through(_FENCE)
    common = [shade(style.color(dice, name), (light + 100) // 2) for name in ("curtain", "door")]
    for segment in segments:
        if segment.kind == "building":
            _house_inks(inks, segment, style, dice, light, common)
        else:
            _open_inks(inks, segment, style, dice, light)
    return inks


def _house_inks(inks: Inks, segment: Segment, style: Style, dice: Dice, light: int, common: Sequence[Color]) -> None:
    texture = BRICK if segment.brick else PLASTER
    body = style.color(dice, "building")
    trim, window, shop = (style.color(dice, name) for name in ("trim", "window", "shop"))
    curtain, door = common
    inks.add(shade(body, light), _BUILDING, texture)
    for color in (trim, window, shade(window, 85), curtain, shop, door, body):
        inks.add(color, _BUILDING, PLASTER)


def _open_inks(inks: Inks, segment: Segment, style: Style, dice: Dice, light: int) -> None:
    name = {"wall": "wall", "fence": "fence", "hedge": "hedge", "gap": "wall"}[segment.kind]
    label = {"wall": _WALL, "fence": _FENCE, "hedge": _VEGETATION, "gap": _WALL}[segment.kind]
    texture = LEAF if segment.kind == "hedge" else BRICK if segment.brick else PLASTER
    body = shade(style.color(dice, name), light)
    for percent in (100, 112, 100, 100, 100, 100, 100, 100):
        inks.add(shade(body, percent), label, texture)


class _Columns:
    """What the columns of one front look at: distance, segment, and the segment's measures."""

    def __init__(self, camera: Camera, front: float, sign: int, segments: Sequence[Segment]) -> None:
        edge = int(camera.center) if sign < 0 else int(camera.center) + 1
        self.window = slice(0, edge - 1) if sign < 0 else slice(edge + 1, WIDTH)
        columns = np.arange(WIDTH, dtype=np.float32)[self.window] + np.float32(0.5 - camera.center)
        self.z: Floats = np.float32(front * camera.focal) / np.abs(columns)
        starts = np.array([s.start for s in segments], np.float32)
        self.segment = np.clip(np.searchsorted(starts, self.z, "right") - 1, 0, len(segments) - 1)
        self.visible = (self.z < np.float32(segments[-1].end)) & (self.z > np.float32(2.5))

    def of(self, values: Sequence[float]) -> Floats:
        """A segment's measure by column."""
        result: Floats = np.array(values, np.float32).take(self.segment)
        return result


def paint_front(
    planes: Planes,
    camera: Camera,
    air: Air,
    front: float,
    sign: int,
    segments: Sequence[Segment],
    inks: Inks,
    style: Style,
) -> None:
    """Paint the plane x = sign * front. Segments are what :func:`segment_inks` saw."""
    columns = _Columns(camera, front, sign, segments)
    z = columns.z[None, :]
    bottom = min(HEIGHT, int(camera.horizon + camera.height * camera.focal / float(columns.z.min())) + 2)
    rows = np.arange(bottom, dtype=np.float32)[:, None] + np.float32(0.5 - camera.horizon)
    height: Floats = np.float32(camera.height) - rows * (z / np.float32(camera.focal))
    zone = _zones(columns, segments, height)
    zone = np.where(zone > 1, zone + columns.segment[None, :] * _ZONES, zone)
    zone[:, ~columns.visible] = 0
    factor = texture_factor(inks, zone, z, height + np.float32(64), fade(style.texture, z))
    # The foot of a wall sees less of the sky.
    factor = (factor - (np.clip(1.2 - height, 0, 1) * np.float32(25)).astype(np.uint16)).astype(np.uint16)
    paint(planes[:, :bottom, columns.window], zone, inks, factor, clearness(air, z), air)


def _zones(columns: _Columns, segments: Sequence[Segment], height: Floats) -> npt.NDArray[np.intp]:
    """Per pixel: 0 nothing, 1 seen through, 2 body, 3 trim, 4-6 windows, 7 shop, 8 door, whatever the segment."""
    kinds = [s.kind for s in segments]
    house = columns.of([k == "building" for k in kinds]) > 0
    top = columns.of([s.height for s in segments]) * _ragged(columns, kinds)
    zone = np.where((height < top) & (height > 0), 2, 0)
    edge = np.where(house, np.float32(0.45), np.float32(0.16))
    zone[(height > top - edge) & (zone > 0)] = 3
    if house.any():
        _windows(columns, segments, house, height, top, zone)
    fence = columns.of([k == "fence" for k in kinds]) > 0
    if fence.any():
        _bars(columns, segments, fence, height, top, zone)
    return zone.astype(np.intp)


def _ragged(columns: _Columns, kinds: Sequence[str]) -> Floats:
    """Hedges have no straight top; far away the waves are narrower than a pixel and vanish."""
    hedge = columns.of([k == "hedge" for k in kinds])
    noise = patches()[0].take((columns.z * np.float32(40)).astype(np.int32) & (SIDE - 1)).astype(np.float32) - 128
    noise += patches()[7].take((columns.z * np.float32(160)).astype(np.int32) & (SIDE - 1)).astype(np.float32) - 128
    waves: Floats = noise * (np.float32(0.16 / 128) / (1 + columns.z * columns.z * np.float32(0.002)))
    return 1 + hedge * waves


def _windows(
    columns: _Columns,
    segments: Sequence[Segment],
    house: npt.NDArray[np.bool_],
    height: Floats,
    top: Floats,
    zone: npt.NDArray[np.int_],
) -> None:
    pitch = columns.of([s.pitch or 1 for s in segments])
    floor = columns.of([s.floor or 1 for s in segments])
    base = columns.of([s.ground_floor for s in segments])
    share = columns.of([s.glazing for s in segments])
    along = (columns.z - columns.of([s.start for s in segments])) / pitch
    bay = np.floor(along)
    inside = house & (np.abs(along - bay - np.float32(0.5)) < share / 2)
    story = (height - base) / floor
    level = np.floor(story)
    part = story - level
    above = house & (height > base) & (height < top - np.float32(0.7))
    window = above & inside & (part > np.float32(0.24)) & (part < np.float32(0.8))
    pane = (bay * 7 + columns.segment * 3).astype(np.int32) + (level * 5).astype(np.int32)
    zone[window] = (4 + ((pane * 13) >> 2) % 3)[window]
    zone[above & (part < np.float32(0.06))] = 3
    low = house & (height < np.float32(2.8)) & (height > 0)
    shop = (
        low & (height > np.float32(0.5)) & (np.abs(along - bay - np.float32(0.5)) < np.float32(0.38)) & (share > 0.44)
    )
    zone[shop] = 7
    door = low & (height < np.float32(2.3)) & inside & ((bay % 4) == 1)
    zone[door] = 8


def _bars(
    columns: _Columns,
    segments: Sequence[Segment],
    fence: npt.NDArray[np.bool_],
    height: Floats,
    top: Floats,
    zone: npt.NDArray[np.int_],
) -> None:
    pitch = columns.of([s.pitch if s.kind == "fence" else 1 for s in segments])
    along = columns.z / pitch
    gap = fence & (along - np.floor(along) > np.float32(0.45)) & (columns.z < np.float32(45))
    rail = (height > top - np.float32(0.2)) | (np.abs(height - np.float32(0.3)) < np.float32(0.08))
    zone[gap & ~rail & (zone > 0)] = 1
