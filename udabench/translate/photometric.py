"""SimCLR's colour jitter and blur as translation engines (T2S-DA's ablation of the engine)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator as Rng
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from udabench.augment.photometry import gaussian_blur
from udabench.translate.base import Translator
from udabench.translate.bounds import within
from udabench.translate.draws import between, draw_rows


class ColorJitter(Translator):
    """Brightness, contrast and saturation by 1 +- 0.8 s, hue by +- 0.2 s, each image in an order of its own.

    Args:
        strength: s; 1 in SimCLR.
        chance: of an image to be changed; 0.8 in SimCLR.
    """

    paired = False

    def __init__(self, strength: float = 1.0, chance: float = 0.8) -> None:
        super().__init__()
        self.strength = within("color_jitter's strength", strength, 0, 1.25)
        self.chance = within("color_jitter's chance", chance, 0, 1)

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        draws = draw_rows(rng, len(source), 9)
        return torch.stack([self._change(image, row) for image, row in zip(source, draws, strict=True)])

    def _change(self, image: Tensor, row: Tensor) -> Tensor:
        draws, order = row[:5].tolist(), row[5:].argsort().tolist()
        if draws[4] >= self.chance:
            return image
        amounts = [self.strength * (2 * u - 1) for u in draws]
        changes: list[Callable[[Tensor], Tensor]] = [
            lambda x: V.adjust_brightness(x, 1 + 0.8 * amounts[0]),
            lambda x: V.adjust_contrast(x, 1 + 0.8 * amounts[1]),
            lambda x: V.adjust_saturation(x, 1 + 0.8 * amounts[2]),
            lambda x: V.adjust_hue(x, 0.2 * amounts[3]),
        ]
        for i in order:
            image = changes[i](image)
        return image


class GaussianBlur(Translator):
    """Blur with a standard deviation of 0.1 to 2 pixels, in a window of a tenth of the side.

    Args:
        chance: of an image to be blurred; 0.5 in SimCLR.
        low, high: bounds of the standard deviation, in pixels.
    """

    paired = False

    def __init__(self, chance: float = 0.5, low: float = 0.1, high: float = 2.0) -> None:
        super().__init__()
        self.chance = within("gaussian_blur's chance", chance, 0, 1)
        self.low = within("gaussian_blur's low", low, 1e-3, high)
        self.high = high

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        draws = draw_rows(rng, len(source), 2)
        blurred = gaussian_blur(source, between(draws[:, 0], self.low, self.high))
        return torch.where((draws[:, 1] < self.chance).view(-1, 1, 1, 1).to(source.device), blurred, source)
