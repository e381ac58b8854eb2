"""Cartoons: flat colours between dark lines."""

from __future__ import annotations

import torch
from torch import Generator as Rng
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from udabench.errors import UsageError
from udabench.translate.base import Translator
from udabench.translate.draws import as_factor, between, draw_rows


class Cartoon(Translator):
    """Edge-preserving smoothing, stronger colours, and lines where a pixel is darker than its surroundings.

    Args:
        passes: of the bilateral filter.
        lines: how much darker than the mean around it a pixel is drawn as a line, on average; 1: no lines.
    """

    paired = False

    def __init__(self, passes: int = 2, lines: float = 0.04) -> None:
        super().__init__()
        if not 1 <= passes <= 10:
            raise UsageError(f"cartoon's passes = {passes}: it must lie in 1 to 10.")
        if not 0 < lines <= 1:
            raise UsageError(f"cartoon's lines = {lines}: it must lie above 0, up to 1 (a brightness).")
        self.passes, self.lines = passes, lines

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        draws = draw_rows(rng, len(source), 3)
        with torch.autocast(source.device.type, enabled=False):
            image = source.float()
            flat = smooth(image, between(draws[:, 0], 0.1, 0.3), self.passes)
            vivid = saturate(flat, between(draws[:, 1], 1, 2))
            return vivid * (1 - draw_lines(image, self.lines * between(draws[:, 2], 0.5, 1.5)))


def smooth(image: Tensor, tolerance: Tensor, passes: int) -> Tensor:
    """Bilateral filter over 5x5 pixels: N 3 H W. ``tolerance``: N, sigma of the colour difference (L1 over RGB)."""
    from kornia.filters import bilateral_blur

    for _ in range(passes):
        image = bilateral_blur(image, 5, tolerance.to(image), (2.0, 2.0), border_type="replicate")
    return image


def saturate(image: Tensor, factor: Tensor) -> Tensor:
    """Move each pixel away from its own grey: N 3 H W in [0, 1]; ``factor``: N."""
    grey: Tensor = V.rgb_to_grayscale(image)
    return (grey + as_factor(factor, image) * (image - grey)).clamp(0, 1)


def draw_lines(image: Tensor, offset: Tensor) -> Tensor:
    """1 where a pixel, freed of single-pixel noise, is darker than the mean of 9x9 by more than ``offset``, else 0.

    Args:
        image: N 3 H W.
        offset: N, a brightness.

    Returns:
        N 1 H W.
    """
    from kornia.filters import box_blur, median_blur

    grey = median_blur(V.rgb_to_grayscale(image), 3, border_type="replicate")
    around = box_blur(grey, 9, border_type="replicate")
    dark: Tensor = grey < around - as_factor(offset, image)
    return dark.to(image)
