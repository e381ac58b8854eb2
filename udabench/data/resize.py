"""Reading at one fixed size: bilinear for images, nearest for labels (Pillow, integer arithmetic, so that every machine
gets the same pixels)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from udabench.data.files import check_same_size, open_image, open_label
from udabench.dataset import Dataset, Pixels, Unlabelled
from udabench.errors import UsageError
from udabench.size import Size


def resize_image(image: Pixels, size: Size) -> Pixels:
    """H W 3 -> ``size``, bilinear with anti-aliasing; the same array where it already fits."""
    return _resize(image, size, Image.Resampling.BILINEAR)


def resize_label(label: Pixels, size: Size) -> Pixels:
    """H W -> ``size``, nearest; the same array where it already fits."""
    return _resize(label, size, Image.Resampling.NEAREST)


def _resize(pixels: Pixels, size: Size, how: Image.Resampling) -> Pixels:
    if pixels.shape[:2] == tuple(size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size.width, size.height), how))


@dataclass(frozen=True)
class Resized:
    """A data set, or its unlabelled view, read at one size.

    Attributes:
        data: where the pixels come from.
        size: of everything that is returned.
    """

    data: Dataset | Unlabelled
    size: Size

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names

    def __len__(self) -> int:
        return len(self.data.names)

    def image(self, name: str) -> Pixels:
        """H W 3, RGB, uint8. Raises DataError that names the file."""
        return resize_image(open_image(self.data, name), self.size)

    def pair(self, name: str) -> tuple[Pixels, Pixels]:
        """The image and its label (ids of the data set's label space). Raises DataError, also on unequal sizes."""
        if isinstance(self.data, Unlabelled):
            raise UsageError("The target's training labels are not available to a method.")
        image, label = open_image(self.data, name), open_label(self.data, name)
        check_same_size(image, label, name, self.data.label_path(name))
        return resize_image(image, self.size), resize_label(label, self.size)
