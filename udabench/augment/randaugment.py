"""RandAugment and cutout (Cubuk et al. 2020; DeVries and Taylor 2017) as FixMatch and ProDA use them, with geometry.

What moves an image moves labels and maps with it: a :class:`StrongView` carries them, on whatever grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from udabench.labels import IGNORE
from udabench.world import own, world_size

GREY = 127 / 255
"""What is seen beyond the image's borders and in the place that is cut out."""
LEVELS = 10


class StrongView(NamedTuple):
    """Images that were changed, and how.

    Attributes:
        image: N 3 H W in [0, 1].
        theta: N 2 3, from a place in the view to that in the image, both from -1 to 1.
        hidden: N 4, what was cut out of the view: left, top, right, bottom, from -1 to 1.
    """

    image: Tensor
    theta: Tensor
    hidden: Tensor

    def carry(self, value: Tensor, mode: Literal["nearest", "bilinear"] = "nearest") -> Tensor:
        """A map of the images N C h w (float) as the view shows it; 0 where that shows none of them."""
        grid = F.affine_grid(self.theta.to(value), list(value.shape), align_corners=False)
        moved = F.grid_sample(value, grid, mode=mode, padding_mode="zeros", align_corners=False)
        return moved * self.shown(value.shape[-2], value.shape[-1]).unsqueeze(1)

    def carry_labels(self, label: Tensor) -> Tensor:
        """Labels N h w (int64) as the view shows them, 255 where it shows none."""
        return (self.carry((label - IGNORE)[:, None].float())[:, 0] + IGNORE).long()

    def shown(self, height: int, width: int) -> Tensor:
        """Which cells of a grid show a place of the image: N h w bool."""
        count = len(self.theta)
        places = F.affine_grid(self.theta, [count, 1, height, width], align_corners=False)
        columns = _centres(width, self.theta)[None, None, :]
        rows = _centres(height, self.theta)[None, :, None]
        left, top, right, bottom = (side[:, None, None] for side in self.hidden.unbind(1))
        cut = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
        return (places.abs() < 1).all(-1) & ~cut


def _centres(length: int, like: Tensor) -> Tensor:
    return (2 * torch.arange(length, device=like.device, dtype=like.dtype) + 1) / length - 1


class _Operation(NamedTuple):
    """One of the pool: ``color(image, level)`` or ``place(signed level, height, width)``, output to input in pixels."""

    color: Callable[[Tensor, int], Tensor] | None = None
    place: Callable[[int, int, int], Tensor] | None = None


def _matrix(*rows: float) -> Tensor:
    return torch.tensor([*rows, 0, 0, 1], dtype=torch.float64).view(3, 3)


def _factor(level: int) -> float:
    return 0.9 * level / LEVELS + 0.05


def _rotation(level: int, height: int, width: int) -> Tensor:
    """Up to 30 degrees in whole ones, about the centre."""
    angle = math.radians(math.copysign(30 * abs(level) // LEVELS, level))
    cos, sin, x, y = math.cos(angle), math.sin(angle), width / 2, height / 2
    return _matrix(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _shift(level: int, length: int) -> int:
    """Up to 0.3 of the length, in whole pixels."""
    return int(0.3 * level / LEVELS * length)


POOL: dict[str, _Operation] = {
    "autocontrast": _Operation(lambda image, level: transforms.autocontrast(image)),
    "brightness": _Operation(lambda image, level: transforms.adjust_brightness(image, _factor(level))),
    "color": _Operation(lambda image, level: transforms.adjust_saturation(image, _factor(level))),
    "contrast": _Operation(lambda image, level: transforms.adjust_contrast(image, _factor(level))),
    "equalize": _Operation(lambda image, level: transforms.equalize(image)),
    "identity": _Operation(),
    "posterize": _Operation(lambda image, level: transforms.posterize(image, 4 + 4 * level // LEVELS)),
    "rotate": _Operation(place=_rotation),
    "sharpness": _Operation(lambda image, level: transforms.adjust_sharpness(image, _factor(level))),
    "shear-x": _Operation(place=lambda level, height, width: _matrix(1, 0.3 * level / LEVELS, 0, 0, 1, 0)),
    "shear-y": _Operation(place=lambda level, height, width: _matrix(1, 0, 0, 0.3 * level / LEVELS, 1, 0)),
    "solarize": _Operation(lambda image, level: transforms.solarize(image, (256 - 256 * level // LEVELS) / 255)),
    "translate-x": _Operation(place=lambda level, height, width: _matrix(1, 0, _shift(level, width), 0, 1, 0)),
    "translate-y": _Operation(place=lambda level, height, width: _matrix(1, 0, 0, 0, 1, _shift(level, height))),
}
"""FixMatch's pool (its strengths at level 10)."""


@dataclass(frozen=True)
class RandAugment:
    """Mirror by a coin, ``operations`` out of :data:`POOL`, each applied by a coin at a level of its own, and cut out.

    Colours come first; all that moves the image is put together, and the image is read once. Levels are 1 to 9, signs
    of movements by a coin, operations drawn with replacement. Each image draws for itself.

    Args:
        operations: number of draws from the pool.
        chance: of each of them, and of the mirror.
        cutout: side of the square that is cut out, over the shorter side of the image; its centre lies anywhere, what
            of it goes beyond the upper left border moves in. 0: none.
    """

    operations: int = 2
    chance: float = 0.5
    cutout: float = 1 / 3

    @torch.no_grad()
    def __call__(self, image: Tensor, rng: Rng) -> StrongView:
        """N 3 H W in [0, 1] -> the view. ``rng``: CPU generator."""
        draws = own(torch.rand(len(image) * world_size(), 3 + 4 * self.operations, generator=rng, dtype=torch.float64))
        height, width = image.shape[-2:]
        changed, thetas, boxes = [], [], []
        for picture, row in zip(image, draws.tolist(), strict=True):
            colored, place = self._changed(picture, row)
            changed.append(colored)
            thetas.append(_normalised(place, height, width))
            boxes.append(_square(row[1], row[2], int(min(height, width) * self.cutout), height, width))
        view = StrongView(
            torch.stack(changed), torch.stack(thetas).to(image.device, torch.float32), image.new_tensor(boxes)
        )
        moved = view.carry(view.image - GREY, "bilinear")
        return view._replace(image=(moved + GREY).clamp(0, 1))

    def _changed(self, picture: Tensor, row: list[float]) -> tuple[Tensor, Tensor]:
        """The picture in other colours, and where the view's pixels come from."""
        height, width = picture.shape[-2:]
        place = _matrix(-1, 0, width, 0, 1, 0) if row[0] < self.chance else _matrix(1, 0, 0, 0, 1, 0)
        for which, strength, coin, sign in zip(*(row[3 + i :: 4] for i in range(4)), strict=True):
            operation = list(POOL.values())[int(which * len(POOL))]
            level = 1 + int(strength * (LEVELS - 1))
            if coin >= self.chance:
                continue
            if operation.color is not None:
                picture = operation.color(picture, level)
            if operation.place is not None:
                place = place @ operation.place(level if sign < 0.5 else -level, height, width)
        return picture, place


def _normalised(place: Tensor, height: int, width: int) -> Tensor:
    """From pixels to places from -1 to 1: 2 3."""
    scale = _matrix(2 / width, 0, -1, 0, 2 / height, -1)
    return (scale @ place @ scale.inverse())[:2]


def _square(across: float, down: float, side: int, height: int, width: int) -> tuple[float, float, float, float]:
    """The square around a place (both as shares), in whole pixels: left, top, right, bottom, from -1 to 1."""
    left, top = (int(max(0, share * length - side / 2)) for share, length in ((across, width), (down, height)))
    right, bottom = min(width, left + side), min(height, top + side)
    return 2 * left / width - 1, 2 * top / height - 1, 2 * right / width - 1, 2 * bottom / height - 1
