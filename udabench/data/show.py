"""A picture of samples: image and coloured label side by side, with a legend of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from udabench.data.doctor import spread
from udabench.data.resize import resize_image, resize_label
from udabench.dataset import Dataset, Pixels
from udabench.labels import IGNORE, LabelSpace
from udabench.size import Size

GAP = 4
LINE = 20


def grid(
    dataset: Dataset, count: int = 6, names: Sequence[str] | None = None, columns: int = 2, width: int = 400
) -> Image.Image:
    """Samples in a grid, each its image and the image under its label; below, the classes.

    Args:
        count: evenly spread over the split, unless ``names`` are given.
        columns: samples a row.
        width: of one picture in pixels; each sample takes two.

    Raises:
        DataError: a file cannot be read.
    """
    chosen = list(names) if names else [dataset.names[i] for i in spread(len(dataset), count)]
    tiles = [_tile(dataset, name, width) for name in chosen]
    height = max(tile.height for tile in tiles)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    key = legend(dataset.label_space, columns * (tiles[0].width + GAP))
    page = Image.new("RGB", (key.width, rows * (height + GAP) + key.height), "white")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        page.paste(tile, (column * (tile.width + GAP), row * (height + GAP)))
    page.paste(key, (0, rows * (height + GAP)))
    return page


def overlay(image: Pixels, label: Pixels, space: LabelSpace, strength: float = 0.6) -> Pixels:
    """H W 3: the image under its label's colours; pixels without a class stay as they are."""
    palette = np.zeros((256, 3), np.float32)
    palette[: len(space)] = space.palette
    mixed = (1 - strength) * image + strength * palette[label]
    return np.where((label == IGNORE)[..., None], image, mixed.round()).astype(np.uint8)


def legend(space: LabelSpace, width: int) -> Image.Image:
    """Colour and name of every class, in as many lines as ``width`` pixels need."""
    font = ImageFont.load_default(size=13)
    places: list[tuple[int, int]] = []
    x = y = 0
    for name in space.names:
        step = LINE + int(font.getlength(name)) + 12
        if x and x + step > width:
            x, y = 0, y + LINE
        places.append((x, y))
        x += step
    page = Image.new("RGB", (width, y + LINE), "white")
    draw = ImageDraw.Draw(page)
    for (left, top), name, color in zip(places, space.names, space.palette, strict=True):
        draw.rectangle((left + 2, top + 3, left + 15, top + 16), fill=color, outline="black")
        draw.text((left + LINE, top + 1), name, fill="black", font=font)
    return page


def _tile(dataset: Dataset, name: str, width: int) -> Image.Image:
    image = dataset.read_image(name)
    size = Size(max(1, round(width * image.shape[0] / image.shape[1])), width)
    small = resize_image(image, size)
    right = small
    if dataset.has_label(name):
        right = overlay(small, resize_label(dataset.read_label(name), size), dataset.label_space)
    tile = Image.new("RGB", (2 * width, size.height + LINE), "white")
    tile.paste(Image.fromarray(small), (0, LINE))
    tile.paste(Image.fromarray(right), (width, LINE))
    ImageDraw.Draw(tile).text((2, 2), name, fill="black", font=ImageFont.load_default(size=13))
    return tile
