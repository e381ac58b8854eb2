"""Fog, rain and snow: the street scene on another day."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F

from udabench.errors import UsageError, unknown
from udabench.translate.base import Translator
from udabench.translate.draws import as_factor, between, draw_rows

DROP = 200 / 255
"""Brightness of a drop of rain (kornia)."""


class Weather(Translator):
    """One kind of weather for each batch, drawn with equal chances; strength and places differ from image to image.

    Args:
        kinds: of ``fog``, ``rain`` and ``snow``.
    """

    paired = False

    def __init__(self, kinds: Sequence[str] = ("fog", "rain", "snow")) -> None:
        super().__init__()
        if isinstance(kinds, str) or not kinds:
            raise UsageError(f"weather's kinds = {kinds!r}: name a list of {', '.join(KINDS)}.")
        for kind in kinds:
            if kind not in KINDS:
                raise unknown("kind of weather", str(kind), KINDS)
        self.kinds = tuple(kinds)

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        kind = self.kinds[int(torch.randint(len(self.kinds), (), generator=rng))]
        with torch.autocast(source.device.type, enabled=False):
            return KINDS[kind](source.float(), rng)


def add_fog(image: Tensor, rng: Rng) -> Tensor:
    """Clouds of a plasma fractal: ``(x + c f) max / (max + c)`` (Hendrycks and Dietterich, 2019), c from 1 to 2.5."""
    from kornia.contrib import diamond_square

    images, _, height, width = image.shape
    clouds = diamond_square(
        (images, 1, height, width),
        roughness=0.5,
        random_fn=lambda shape, device=None, dtype=None: draw_rows(rng, *shape),
        normalize_range=(0, 1),
    )
    amount = as_factor(between(draw_rows(rng, images), 1, 2.5), image)
    peak = image.amax((1, 2, 3), keepdim=True)
    return (image + amount * clouds.to(image)) * peak / (peak + amount)


def add_rain(image: Tensor, rng: Rng) -> Tensor:
    """Slanting streaks, on a darkened scene: 0.4 to 0.8 % of the pixels begin one (kornia's density at 512x512)."""
    from kornia.augmentation import RandomRain

    images, _, height, width = image.shape
    most = max(1, round(0.008 * height * width))
    draws, places = draw_rows(rng, images, 5), draw_rows(rng, images, most, 2)
    params = {
        "number_of_drops_factor": (between(draws[:, 0], 0.5, 1) * most).long(),
        "drop_height_factor": between(draws[:, 1], 5, 21).long().clamp(max=height - 1),
        "drop_width_factor": between(draws[:, 2], -5, 6).floor().long().clamp(1 - width, width - 1),
        "coordinates_factor": places,
    }
    streaks: Tensor = RandomRain(p=1.0).apply_transform(image.new_zeros(images, 1, height, width), params, {})
    covered = as_factor(between(draws[:, 3], 0.4, 0.9), image) * streaks / DROP
    dark = image * as_factor(between(draws[:, 4], 0.6, 1), image)
    return dark + covered * (DROP - dark)


def add_snow(image: Tensor, rng: Rng) -> Tensor:
    """Flakes in the wind, before and behind each other, on a whitened scene (as Hendrycks and Dietterich, 2019)."""
    from kornia.filters import motion_blur

    images, _, height, width = image.shape
    draws = draw_rows(rng, images, 4)
    grain = 2
    noise = draw_rows(rng, images, 1, -(-height // grain), -(-width // grain))
    flakes = (noise > as_factor(between(draws[:, 0], 0.985, 0.998), noise)).float()
    flakes = F.interpolate(flakes, scale_factor=grain)[..., :height, :width].to(image)
    length = min(11, 2 * (min(height, width) - 1) + 1)
    if length >= 3:
        angle = between(draws[:, 1], -135, -45).to(image)
        flakes = 2 * motion_blur(flakes, length, angle, torch.zeros_like(angle), mode="bilinear")
    grey = image.mean(1, keepdim=True)
    white = torch.maximum(image, 1.5 * grey + 0.5)
    share = as_factor(between(draws[:, 2], 0.1, 0.4), image)
    return (image + share * (white - image) + flakes + flakes.flip(2, 3)).clamp(0, 1)


KINDS: dict[str, Callable[[Tensor, Rng], Tensor]] = {"fog": add_fog, "rain": add_rain, "snow": add_snow}
