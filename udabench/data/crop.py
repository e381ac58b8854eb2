"""Windows: where a crop lies, how it is drawn, cut and mirrored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from udabench.dataset import Pixels
from udabench.labels import IGNORE
from udabench.size import Size

REDRAWS = 10
"""How often a crop is drawn again before it is taken as it is (DAFormer code)."""


class Window(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def mirrored(self, width: int) -> Window:
        """Where it lies after a picture of this width is mirrored."""
        return self._replace(left=width - self.left - self.width)


class Place(NamedTuple):
    """The shared crop and the larger one around it (the shared one itself, where no context is asked for)."""

    crop: Window
    context: Window


def draw_place(size: Size, crop: Size, context: Size | None, rng: np.random.Generator) -> Place:
    """Uniformly: the context in the picture, then the crop in the context. Where the picture is smaller than one of
    them, that one begins at its border; a crop lies in the picture as far as it fits there."""
    outer = _draw(size, context or crop, rng)
    if context is None:
        return Place(outer, outer)
    left = Size(*(min(part, whole - start) for part, whole, start in zip(context, size, outer, strict=False)))
    inner = _draw(left, crop, rng)
    return Place(inner._replace(top=outer.top + inner.top, left=outer.left + inner.left), outer)


def place_around(
    pixel: tuple[int, int], size: Size, crop: Size, context: Size | None, rng: np.random.Generator
) -> Place:
    """The crop centred on a pixel as far as it stays in the picture; the context around it uniformly. Where the picture
    is smaller than one of them, that one begins at its border."""
    top, left = (
        min(max(0, centre - part // 2), max(0, whole - part))
        for centre, part, whole in zip(pixel, crop, size, strict=True)
    )
    inner = Window(top, left, *crop)
    if context is None:
        return Place(inner, inner)
    top, left = (
        int(rng.integers(max(0, start + part - outer), min(start, max(0, whole - outer)) + 1))
        for start, part, outer, whole in zip((top, left), crop, context, size, strict=True)
    )
    return Place(inner, Window(top, left, *context))


def _draw(size: Size, part: Size, rng: np.random.Generator) -> Window:
    top = int(rng.integers(max(0, size.height - part.height) + 1))
    left = int(rng.integers(max(0, size.width - part.width) + 1))
    return Window(top, left, part.height, part.width)


def draw_until(draw: Callable[[], Place], good: Callable[[Window], bool]) -> Place:
    """The first place whose crop is good; after ten further tries the last."""
    place = draw()
    for _ in range(REDRAWS):
        if good(place.crop):
            break
        place = draw()
    return place


def varied(label: Pixels, max_ratio: float) -> bool:
    """Whether no class covers ``max_ratio`` of the known pixels, and there are two classes at least."""
    counts = np.bincount(label.ravel(), minlength=256)[:IGNORE]
    return int((counts > 0).sum()) > 1 and bool(counts.max() < max_ratio * counts.sum())


def cut_pixels(pixels: Pixels, window: Window, mirror: bool) -> Tensor:
    """H W 3 -> 3 h w, or H W -> h w: the window, mirrored if so drawn; a copy of its own."""
    part = pixels[window.slices]
    part = part[:, ::-1] if mirror else part
    return torch.from_numpy(np.array(np.moveaxis(part, -1, 0) if part.ndim == 3 else part, order="C"))


def cut_layer(layer: Tensor, window: Window, mirror: bool) -> Tensor:
    """... H W -> ... h w: the same of a tensor."""
    part = layer[(..., *window.slices)]
    return part.flip(-1) if mirror else part.clone()
