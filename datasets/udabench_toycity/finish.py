"""The camera's part: surface texture, uneven light, colour, blur and noise. Integers only, so every machine agrees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from udabench_toycity.camera import HEIGHT, WIDTH
from udabench_toycity.dice import Dice
from udabench_toycity.look import Style
from udabench_toycity.plane import Planes
from udabench_toycity.texture import LEAF, PLASTER, corners, grain, patches, screen

Pixels = npt.NDArray[np.uint8]
_VEGETATION, _SKY = 8, 10
_MIDDLE = 118


def finish(scene: Planes, style: Style, dice: Dice) -> tuple[Pixels, Pixels]:
    """A rendered scene, 4 H W -> the picture, H W 3, and the label, H W."""
    label = scene[3]
    light = _light(label, style, dice)
    planes = [_times(plane, light) for plane in scene[:3]]
    planes = [blur(plane, style.blur) for plane in _saturate(planes, style)]
    curves = [curve(style.contrast, gain, style.gamma) for gain in style.gain]
    planes = [table.take(plane) for table, plane in zip(curves, planes, strict=True)]
    return _noise(planes, style, dice), label


def _cut(bank: npt.NDArray[np.generic], dice: Dice) -> npt.NDArray[np.generic]:
    y, x = dice.whole(0, HEIGHT), dice.whole(0, WIDTH)
    return bank[y : y + HEIGHT, x : x + WIDTH]


def _light(label: Pixels, style: Style, dice: Dice) -> npt.NDArray[np.uint16]:
    """Brightness by pixel; 256 is neutral."""
    amplitude = np.full(256, int(70 * style.texture), np.int32)
    amplitude[_VEGETATION] = int(230 * style.texture)
    amplitude[_SKY] = 0
    amplitude = amplitude.take(label)
    leaves = label == _VEGETATION
    texel = np.where(leaves, _cut(screen(LEAF), dice), _cut(screen(PLASTER), dice)).astype(np.int32) - 128
    light = 256 + ((texel * amplitude) >> 7)
    if style.mottle > 0:
        patch = _cut(patches(), dice).astype(np.int32) - 128
        light += (patch * int(256 * style.mottle)) >> 7
    if style.vignette > 0:
        light -= (corners().astype(np.int32) * int(256 * style.vignette)) >> 8
    result: npt.NDArray[np.uint16] = np.clip(light, 40, 500).astype(np.uint16)
    return result


def _times(plane: Pixels, light: npt.NDArray[np.uint16]) -> Pixels:
    product = (plane.astype(np.uint32) * light) >> 8
    result: Pixels = np.minimum(product, 255).astype(np.uint8)
    return result


def _saturate(planes: list[Pixels], style: Style) -> list[Pixels]:
    red, green, blue = (plane.astype(np.int16) for plane in planes)
    gray = (red * 19 + green * 38 + blue * 7) >> 6
    factor = int(64 * style.saturation)
    return [np.clip(gray + (((plane - gray) * factor) >> 6), 0, 255).astype(np.uint8) for plane in (red, green, blue)]


def curve(contrast: float, gain: float, gamma: float) -> Pixels:
    """256 entries: contrast about a middle grey, gain, gamma (Schlick's rational bias: pow() is not exact)."""
    x = np.clip(((np.arange(256.0) - _MIDDLE) * contrast + _MIDDLE) * gain / 255, 0, 1)
    table: Pixels = (255 * x / ((1 / gamma - 2) * (1 - x) + 1) + 0.5).astype(np.uint8)
    return table


def blur(plane: Pixels, variance: float) -> Pixels:
    """Repeated smoothing by (w, 64 - 2 w, w) / 64, whose variance is w / 32 each way, in pixels squared."""
    passes = int(variance / 0.55) + 1
    w = np.uint16(32 * variance / passes + 0.5)
    value = plane.astype(np.uint16)
    for _ in range(passes):
        for axis in (0, 1):
            value = _smooth(value, w, axis)
    return value.astype(np.uint8)


def _smooth(value: npt.NDArray[np.uint16], w: np.uint16, axis: int) -> npt.NDArray[np.uint16]:
    """One pass along an axis; the border keeps its values."""
    before, middle, after = (
        (value[:-2], value[1:-1], value[2:]) if axis == 0 else (value[:, :-2], value[:, 1:-1], value[:, 2:])
    )
    result = value.copy()
    inner = result[1:-1] if axis == 0 else result[:, 1:-1]
    inner[...] = ((before + after) * w + middle * (np.uint16(64) - w - w) + np.uint16(32)) >> np.uint16(6)
    return result


def _noise(planes: list[Pixels], style: Style, dice: Dice) -> Pixels:
    noise = _cut(grain(), dice).astype(np.int16)
    noise = (noise * np.int16(4 * style.noise)) >> 8
    for channel, plane in enumerate(planes):
        noise[..., channel] += plane
    return np.clip(noise, 0, 255).astype(np.uint8)
