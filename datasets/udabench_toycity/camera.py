"""The pinhole camera and the air between it and things. Metres: x to the right, y up from the ground, z ahead."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[int, int, int]
Point = tuple[int, int]
WIDTH, HEIGHT = 512, 256


@dataclass(frozen=True)
class Camera:
    """Looks straight down the street.

    Attributes:
        height: metres above the ground.
        focal: focal length in pixels.
        horizon: row of the horizon.
        center: column of the vanishing point.
    """

    height: float
    focal: float
    horizon: float
    center: float

    def point(self, x: float, y: float, z: float) -> Point:
        """The pixel (column, row) of a place. Whole pixels, so that the drawing library has nothing to round."""
        scale = self.focal / z
        return int(self.center + x * scale // 1), int(self.horizon + (self.height - y) * scale // 1)

    def sees(self, x: float, z: float, width: float) -> bool:
        """Whether something ``width`` metres wide at (x, z) reaches into the picture."""
        scale = self.focal / z
        return (x + width / 2) * scale > -self.center and (x - width / 2) * scale < WIDTH - self.center


@dataclass(frozen=True)
class Air:
    """Haze: a far colour fades into ``color``. Rational, not exp(): the last bit of exp() differs by machine."""

    color: Color
    length: float

    def clear(self, z: float) -> int:
        """Share of the thing's own colour at distance z, in 1/256."""
        q = z / self.length
        return int(256 / (1 + q + q * q / 2))

    def through(self, color: Color, z: float) -> Color:
        a = self.clear(z)
        b = 256 - a
        r, g, h = self.color
        return (color[0] * a + r * b) >> 8, (color[1] * a + g * b) >> 8, (color[2] * a + h * b) >> 8


def shade(color: Color, percent: int) -> Color:
    """Lighter (> 100) or darker."""
    r, g, b = color
    return min(255, r * percent // 100), min(255, g * percent // 100), min(255, b * percent // 100)


def mix(a: Color, b: Color, share: float) -> Color:
    """``share`` of b, the rest of a."""
    k = int(share * 256)
    m = 256 - k
    return (a[0] * m + b[0] * k) >> 8, (a[1] * m + b[1] * k) >> 8, (a[2] * m + b[2] * k) >> 8
