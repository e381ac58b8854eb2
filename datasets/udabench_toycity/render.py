"""A scene from its key: plan, things, and the order in which they are painted, far to near."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from udabench_toycity import car, cycle, furniture, person, tree, vehicle
from udabench_toycity.camera import HEIGHT, WIDTH, Air, Camera, mix, shade
from udabench_toycity.canvas import Canvas
from udabench_toycity.dice import Dice
from udabench_toycity.facade import paint_front, segment_inks
from udabench_toycity.ground import Shadows, paint_ground
from udabench_toycity.look import Look, Style, draw_style
from udabench_toycity.placing import place_things, place_yards
from udabench_toycity.plane import Planes
from udabench_toycity.street import FAR, draw_backs, draw_street
from udabench_toycity.texture import patches
from udabench_toycity.thing import Thing

_BUILDING, _SKY = 2, 10
_BACK = 13.0
"""Metres between a street's front and the houses behind it."""
Painter = Callable[[Canvas, Thing, Style, Dice], None]
PAINTERS: Mapping[str, Painter] = {
    "car": car.draw_car,
    "truck": vehicle.draw_truck,
    "bus": vehicle.draw_bus,
    "train": vehicle.draw_train,
    "bicycle": cycle.draw_bicycle,
    "cyclist": cycle.draw_cyclist,
    "motorcycle": cycle.draw_motorcycle,
    "motorcyclist": cycle.draw_motorcyclist,
    "person": person.draw_person,
    "lamp": furniture.draw_lamp,
    "bollard": furniture.draw_bollard,
    "traffic_light": furniture.draw_traffic_light,
    "sign": furniture.draw_sign,
    "tree": tree.draw_tree,
    "bush": tree.draw_bush,
}


class Renderer:
    """Draws one scene. What is random is drawn in a fixed order from one stream."""

    def __init__(self, look: Look, dice: Dice) -> None:
        self.dice = dice
        self.style = draw_style(look, dice)
        self.camera = Camera(
            height=self.style.camera,
            focal=WIDTH * dice.between(1.02, 1.14),
            horizon=HEIGHT * dice.between(0.4, 0.48),
            center=WIDTH * dice.between(0.4, 0.6),
        )
        self.air = Air(mix(self.style.sky[1], (190, 190, 190), 0.3), self.style.haze)
        self.street = draw_street(dice, self.style)
        self.planes: Planes = np.zeros((4, HEIGHT, WIDTH), np.uint8)

    def render(self) -> Planes:
        """Colour before the camera's own faults, and the label."""
        things = [t for t in place_things(self.dice, self.street, self.style) if self._visible(t)]
        self._sky()
        self._ground(things)
        self._fronts(back=True)
        self._objects(place_yards(self.dice, self.street, self.style), yards=True)
        self._fronts(back=False)
        self._objects(things, yards=False)
        return self.planes

    def _visible(self, thing: Thing) -> bool:
        return thing.z > 4 and self.camera.sees(thing.x, thing.z + thing.length, thing.width + 4)

    def _sky(self) -> None:
        rows = int(self.camera.horizon) + 2
        top, low = self.style.sky
        part = (np.arange(rows, dtype=np.uint32) * 256 // rows)[:, None]
        y, x = self.dice.whole(0, HEIGHT), self.dice.whole(0, WIDTH)
        # Clouds lie flat: three rows of noise to one of the picture.
        noise = patches()[(y + 3 * np.arange(rows)) % (2 * HEIGHT), x : x + WIDTH].astype(np.int32)
        cloud = np.clip((noise - 140) * 5, 0, 255) * int(256 * self.style.clouds) >> 8
        white = mix((250, 250, 252), self.style.sky[1], 0.45 * self.style.photo_colors)
        for channel in range(3):
            base = (top[channel] * (256 - part) + low[channel] * part) >> 8
            self.planes[channel, :rows] = (base * (256 - cloud) + white[channel] * cloud) >> 8
        self.planes[3] = _SKY

    def _ground(self, things: list[Thing]) -> None:
        shadows = Shadows(self.camera, self.style)
        for thing in things:
            if thing.kind in ("tree", "bush"):
                shadows.blob(thing.x, thing.z, thing.width / 2, thing.height - thing.width / 2)
            elif thing.kind in ("car", "truck", "bus", "train"):
                shadows.block(thing.x, thing.z, thing.width, thing.length, thing.height)
            else:
                shadows.blob(thing.x, thing.z, thing.width / 2 + 0.1, 0.0, contact=True)
        paint_ground(self.planes, self.camera, self.air, self.street, self.style, self.dice, shadows.raster.pixels)

    def _fronts(self, back: bool) -> None:
        contrast = int(50 * self.style.sun)
        for sign, side, segments in zip((-1, 1), self.street.sides, self.street.frontages, strict=True):
            chosen = draw_backs(self.dice) if back else segments
            light = 100 + contrast if sign == self.style.sun_side else 96 - contrast
            inks = segment_inks(chosen, self.style, self.dice, light)
            front = side.front + (_BACK if back else 0.0)
            paint_front(self.planes, self.camera, self.air, front, sign, chosen, inks, self.style)

    def _objects(self, things: list[Thing], yards: bool) -> None:
        canvas = Canvas(self.planes, self.camera, self.air)
        jobs = [(t.z, i, t) for i, t in enumerate(things)]
        walls = self._end_walls() if yards else []
        order: list[tuple[float, int, Thing]] = sorted([*jobs, *walls], key=lambda job: (-job[0], job[1]))
        for _, _, thing in order:
            if thing.kind == "block":
                self._block(canvas, thing)
            else:
                PAINTERS[thing.kind](canvas, thing, self.style, self.dice)
        self.planes = canvas.planes()

    def _end_walls(self) -> list[tuple[float, int, Thing]]:
        """Gables that face the camera, and the houses that close the street."""
        blocks: list[Thing] = []
        x = -60.0
        while x < 60:
            width = self.dice.between(8, 22)
            blocks.append(
                Thing("block", x + width / 2, FAR - self.dice.between(0, 30), width, height=self.dice.between(5, 22))
            )
            x += width + self.dice.between(0, 8)
        for sign, side, segments in zip((-1, 1), self.street.sides, self.street.frontages, strict=True):
            for before, segment in pairwise(segments):
                if segment.kind == "building" and before.kind != "building" and segment.start > 5:
                    blocks.append(Thing("block", sign * (side.front + 5), segment.start, 10.0, height=segment.height))
        return [(t.z, 1000 + i, t) for i, t in enumerate(blocks)]

    def _block(self, canvas: Canvas, thing: Thing) -> None:
        (x0, y0) = self.camera.point(thing.x - thing.width / 2, thing.height, thing.z)
        (x1, y1) = self.camera.point(thing.x + thing.width / 2, 0.0, thing.z)
        color = shade(self.style.color(self.dice, "building"), 88)
        canvas.raster.rectangle(x0, y0, x1, y1, canvas.ink(color, _BUILDING, thing.z))
        step = int(1.5 * self.camera.focal / thing.z)
        if thing.z > 90 or step < 4:
            return
        window = canvas.ink(self.style.color(self.dice, "window"), _BUILDING, thing.z)
        for x in range(x0 + step, x1 - step, 2 * step):
            for y in range(y0 + step, min(y1, HEIGHT) - 2 * step, 2 * step):
                canvas.raster.rectangle(x, y, x + step // 2, y + step, window)


def render(look: Look, dice: Dice) -> tuple[Planes, Style]:
    """The scene of this stream of numbers, and the values that the camera's faults need."""
    renderer = Renderer(look, dice)
    return renderer.render(), renderer.style
