"""The canvas: colour and label are drawn together, packed into one number a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from udabench_toycity.camera import Air, Camera, Color, Point
from udabench_toycity.plane import Planes
from udabench_toycity.raster import Raster

Place = tuple[float, float]


class Canvas:
    """Draws filled shapes at a depth, over what ``planes`` hold; only whole pixels reach the raster."""

    def __init__(self, planes: Planes, camera: Camera, air: Air) -> None:
        self.raster = Raster(np.uint32)
        for i, plane in enumerate(planes):
            self.raster.pixels |= plane.astype(np.uint32) << np.uint32(8 * i)
        self.camera = camera
        self.air = air

    def planes(self) -> Planes:
        """What has been drawn."""
        return np.stack([(self.raster.pixels >> np.uint32(8 * i)).astype(np.uint8) for i in range(4)])

    def ink(self, color: Color, label: int, z: float) -> int:
        """Colour, seen through the air, and label in one number."""
        red, green, blue = self.air.through(color, z)
        return red | green << 8 | blue << 16 | label << 24

    def ellipse(self, x0: int, y0: int, x1: int, y1: int, color: Color, label: int, z: float) -> None:
        self.raster.ellipse(x0, y0, max(x0, x1), max(y0, y1), self.ink(color, label, z))

    def face(self, corners: Sequence[tuple[float, float, float]], color: Color, label: int) -> None:
        """A polygon in space, hazy as its first corner."""
        point = self.camera.point
        self.raster.polygon([point(*c) for c in corners], self.ink(color, label, corners[0][2]))


class Sprite:
    """A flat upright figure that stands at (x, z); its coordinates are metres right and up from its foot.

    ``squeeze`` < 1 narrows it, as if it were turned away from the camera; negative values mirror it.
    ``size`` enlarges it as a whole.
    """

    def __init__(self, canvas: Canvas, x: float, z: float, label: int, squeeze: float = 1.0, size: float = 1.0) -> None:
        camera = canvas.camera
        self.canvas = canvas
        self.label = label
        self.z = z
        scale = camera.focal / z
        self.scale = scale * size
        self._across = self.scale * squeeze
        self._x = camera.center + x * scale
        self._y = camera.horizon + camera.height * scale

    def at(self, u: float, v: float) -> Point:
        return int((self._x + u * self._across) // 1), int((self._y - v * self.scale) // 1)

    def poly(self, places: Sequence[Place], color: Color, label: int | None = None) -> None:
        ink = self.canvas.ink(color, self.label if label is None else label, self.z)
        self.canvas.raster.polygon([self.at(u, v) for u, v in places], ink)

    def rect(self, u0: float, v0: float, u1: float, v1: float, color: Color, label: int | None = None) -> None:
        (xa, yb), (xb, ya) = self.at(u0, v0), self.at(u1, v1)
        ink = self.canvas.ink(color, self.label if label is None else label, self.z)
        self.canvas.raster.rectangle(min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb), ink)

    def disc(self, u: float, v: float, radius: float, color: Color, label: int | None = None) -> None:
        """A circle that is squeezed like the figure."""
        (xa, yb), (xb, ya) = self.at(u - radius, v - radius), self.at(u + radius, v + radius)
        ink = self.canvas.ink(color, self.label if label is None else label, self.z)
        self.canvas.raster.ellipse(min(xa, xb), ya, max(xa, xb), max(ya, yb), ink)

    def ball(self, u: float, v: float, radius: float, color: Color, label: int | None = None) -> None:
        """A sphere: round from every side."""
        x, y = self.at(u, v)
        r = int(radius * self.scale // 1)
        ink = self.canvas.ink(color, self.label if label is None else label, self.z)
        self.canvas.raster.ellipse(x - r, y - r, x + r, y + r, ink)

    def bar(self, a: Place, b: Place, width: float, color: Color, label: int | None = None) -> None:
        """A limb, tube or pole from a to b; at least one pixel wide."""
        ink = self.canvas.ink(color, self.label if label is None else label, self.z)
        (xa, ya), (xb, yb) = self.at(*a), self.at(*b)
        if width * self.scale < 1.7:
            self.canvas.raster.line(xa, ya, xb, yb, ink)
            return
        dx, dy = xb - xa, yb - ya
        half = width * self.scale / 2 / sqrt(dx * dx + dy * dy or 1)
        px, py = -dy * half, dx * half
        corners = ((xa + px, ya + py), (xb + px, yb + py), (xb - px, yb - py), (xa - px, ya - py))
        self.canvas.raster.polygon([(int(x // 1), int(y // 1)) for x, y in corners], ink)
