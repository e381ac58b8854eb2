"""Cutting from a scaled image: only what a window shows is scaled, and what lies beyond the image is padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from udabench.data.crop import Window, cut_layer, cut_pixels
from udabench.dataset import Pixels
from udabench.labels import IGNORE
from udabench.size import Size

PADDING = (124, 116, 104)
"""RGB of padding: the mean colour of ImageNet, which becomes 0 up to rounding as the usual weights normalise."""


@dataclass(frozen=True)
class Cutter:
    """Cuts windows out of an image and all that belongs to it, scaled alike.

    Images are scaled bilinearly with anti-aliasing, all else by the nearest pixel, so that numbers that belong together
    (class and probability) stay together. Windows begin in the image; below and right of it lies padding.

    Attributes:
        size: of the image as it is read.
        scaled: the size that windows lie in.
    """

    size: Size
    scaled: Size

    def image(self, image: Pixels, window: Window, mirror: bool) -> Tensor:
        """H W 3 -> 3 h w."""
        if self._plain:
            return cut_pixels(image, window, mirror)
        inner = self._inside(window)
        part = np.full((window.height, window.width, 3), PADDING, np.uint8)
        part[: inner.height, : inner.width] = _bilinear(image, self.scaled, inner)
        return cut_pixels(part, Window(0, 0, *part.shape[:2]), mirror)

    def label(self, label: Pixels, window: Window, mirror: bool) -> Tensor:
        """H W -> h w, 255 on padding."""
        if self._plain:
            return cut_pixels(label, window, mirror)
        part = self.seen(label, window)
        return cut_pixels(part, Window(0, 0, *part.shape), mirror)

    def seen(self, label: Pixels, window: Window) -> Pixels:
        """What a window shows of a label, 255 on padding; not to be written to."""
        if self._plain:
            return label[window.slices]
        inner = self._inside(window)
        rows, columns = self._nearest(inner)
        part = np.full((window.height, window.width), IGNORE, np.uint8)
        part[: inner.height, : inner.width] = label[rows][:, columns]
        return part

    def layer(self, layer: Tensor, window: Window, mirror: bool) -> Tensor:
        """... H W -> ... h w: on padding 255 of class ids (H W, whole numbers), 0 of anything else."""
        if self._plain:
            return cut_layer(layer, window, mirror)
        inner = self._inside(window)
        rows, columns = (torch.from_numpy(places) for places in self._nearest(inner))
        part = layer.index_select(-2, rows).index_select(-1, columns)
        ids = layer.dim() == 2 and not layer.is_floating_point() and layer.dtype != torch.bool
        beyond = (0, window.width - inner.width, 0, window.height - inner.height)
        part = pad(part, beyond, value=IGNORE if ids else 0)
        return part.flip(-1) if mirror else part

    def valid(self, window: Window, mirror: bool) -> Tensor:
        """h w bool: False on padding."""
        inner = self._inside(window)
        valid = torch.zeros(window.height, window.width, dtype=torch.bool)
        valid[: inner.height, : inner.width] = True
        return valid.flip(-1) if mirror else valid

    def scale(self, row: int, column: int) -> tuple[int, int]:
        """Where a pixel of the image comes to lie."""
        height, width = self.size
        return (
            (2 * row + 1) * self.scaled.height // (2 * height),
            (2 * column + 1) * self.scaled.width // (2 * width),
        )

    @property
    def _plain(self) -> bool:
        return self.size == self.scaled

    def _inside(self, window: Window) -> Window:
        top, left, height, width = window
        return Window(top, left, min(height, self.scaled.height - top), min(width, self.scaled.width - left))

    def _nearest(self, window: Window) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return (
            _nearest(self.size.height, self.scaled.height, window.top, window.height),
            _nearest(self.size.width, self.scaled.width, window.left, window.width),
        )


def _nearest(length: int, scaled: int, start: int, extent: int) -> npt.NDArray[np.int64]:
    """The pixel under the centre of each of ``extent`` pixels of an axis that is scaled from ``length``."""
    return (2 * np.arange(start, start + extent) + 1) * length // (2 * scaled)


def _bilinear(image: Pixels, scaled: Size, window: Window) -> Pixels:
    """A window of the scaled image, from the pixels that it depends on."""
    rows, top, bottom = _sources(image.shape[0], scaled.height, window.top, window.height)
    columns, left, right = _sources(image.shape[1], scaled.width, window.left, window.width)
    part = Image.fromarray(image[rows, columns])
    size, box = (window.width, window.height), (left, top, right, bottom)
    return np.asarray(part.resize(size, Image.Resampling.BILINEAR, box))


def _sources(length: int, scaled: int, start: int, extent: int) -> tuple[slice, float, float]:
    """Which pixels of an axis a part of the scaled one depends on, and where that part begins and ends among them."""
    ratio = length / scaled
    begin, end = start * ratio, min((start + extent) * ratio, length)
    reach = math.ceil(max(ratio, 1.0)) + 1
    low, high = max(0, math.floor(begin) - reach), min(length, math.ceil(end) + reach)
    return slice(low, high), begin - low, end - low
