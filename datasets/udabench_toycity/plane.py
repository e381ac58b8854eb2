"""Surfaces in perspective, painted as arrays: zones per pixel, a colour and label per zone, texture, light and haze."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from udabench_toycity.camera import Air, Color
from udabench_toycity.texture import SIDE, TEXELS, surfaces

Planes = npt.NDArray[np.uint8]
"""4 H W: red, green, blue, label."""
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


class Inks:
    """Colours and labels by zone. Zone 0 is nothing, zone 1 is seen through: it gives its label only."""

    def __init__(self) -> None:
        self._colors: list[Color] = [(0, 0, 0), (0, 0, 0)]
        self._labels: list[int] = [0, 0]
        self._textures: list[int] = [0, 0]

    def add(self, color: Color, label: int, texture: int = 0) -> int:
        """The new zone's number."""
        self._colors.append(color)
        self._labels.append(label)
        self._textures.append(texture)
        return len(self._colors) - 1

    def see_through(self, label: int) -> int:
        """The one zone without a colour; all of them in a picture share a label."""
        self._labels[1] = label
        return 1

    def colors(self) -> npt.NDArray[np.uint16]:
        """3 n."""
        return np.array(self._colors, np.uint16).T

    def labels(self) -> npt.NDArray[np.uint8]:
        return np.array(self._labels, np.uint8)

    def textures(self) -> Ints:
        """Offset of each zone's texture in the flattened bank."""
        return np.array(self._textures, np.int32) * (SIDE * SIDE)


def clearness(air: Air, z: Floats) -> npt.NDArray[np.uint16]:
    """As :meth:`Air.clear`, for arrays; 256 is clear."""
    q = z / np.float32(air.length)
    return (np.float32(256) / (1 + q + q * q / 2)).astype(np.uint16)


def texture_factor(
    inks: Inks, zone: npt.NDArray[np.intp], u: Floats, v: Floats, amplitude: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint16]:
    """Brightness by texture; 128 is neutral. u, v in metres; amplitude in 1/128, may vary by row or column."""
    across = (u * np.float32(TEXELS)).astype(np.int32) & (SIDE - 1)
    along = (v * np.float32(TEXELS)).astype(np.int32) & (SIDE - 1)
    texel = surfaces().reshape(-1).take(inks.textures().take(zone) + along * SIDE + across)
    factor: npt.NDArray[np.uint16] = (128 + (((texel.astype(np.int32) - 128) * amplitude) >> 7)).astype(np.uint16)
    return factor


def fade(texture: float, z: Floats) -> npt.NDArray[np.int32]:
    """A texture's amplitude at distance z: far texels are finer than pixels and average out."""
    return (np.float32(128 * texture) / (1 + z * np.float32(0.03))).astype(np.int32)


def paint(
    planes: Planes,
    zone: npt.NDArray[np.intp],
    inks: Inks,
    factor: npt.NDArray[np.uint16],
    clear: npt.NDArray[np.uint16],
    air: Air,
) -> None:
    """Paint zones > 0 onto a window of the picture.

    ``factor``: 128 is neutral, at most 255; ``clear``: as :func:`clearness` gives it.
    """
    colors = inks.colors()
    haze: Sequence[int] = air.color
    hazy = 256 - clear
    opaque = zone > 1
    for channel in range(3):
        # At most 255 * 255, and 255 * 256 below: all fits 16 bits.
        value = np.minimum((colors[channel].take(zone) * factor) >> 7, 255)
        value = (value * clear + np.uint16(haze[channel]) * hazy) >> 8
        np.copyto(planes[channel], value.astype(np.uint8), where=opaque)
    np.copyto(planes[3], inks.labels().take(zone), where=zone > 0)
