"""Style pictures for engines that need a partner but no target: a folder of them, or textures made up on the spot."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F

from udabench.data.files import read_rgb
from udabench.data.resize import resize_image
from udabench.errors import UsageError
from udabench.size import Size
from udabench.translate.draws import between, draw_rows

PROCEDURAL = "procedural"
SUFFIXES = (".png", ".jpg", ".jpeg")
KEPT = 128
"""Decoded pictures that stay in memory."""


class Styles(Protocol):
    """Where style pictures come from."""

    def pick(self, count: int, size: Size, rng: Rng) -> Tensor:
        """``count`` pictures drawn with replacement: N 3 H W in [0, 1], on the CPU; of ``size`` or smaller."""


def open_styles(name: str) -> Styles:
    """``procedural``, or a folder. Raises UsageError for a folder without pictures."""
    return ProceduralStyles() if name == PROCEDURAL else StyleFolder(Path(name).expanduser())


class StyleFolder:
    """The pictures below a folder. Raises UsageError where there is none."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"There is no folder {folder} of style pictures. Name one, or styles={PROCEDURAL}.")
        self.pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not self.pictures:
            raise UsageError(f"The folder {folder} holds no style pictures ({', '.join(SUFFIXES)}).")
        self._read = lru_cache(KEPT)(_read)

    def pick(self, count: int, size: Size, rng: Rng) -> Tensor:
        places = (draw_rows(rng, count) * len(self.pictures)).long().tolist()
        return torch.stack([self._read(self.pictures[place], size) for place in places]).float() / 255


def _read(path: Path, size: Size) -> Tensor:
    """3 H W uint8. Raises DataError that names the file."""
    return torch.tensor(resize_image(read_rgb(path), size)).permute(2, 0, 1)


class ProceduralStyles:
    """Textures: a colour, lighter and darker by noise of several octaves, under a coloured veil of the same kind.

    Their spectra fall with the frequency as those of pictures do; how steeply is drawn for each.
    """

    OCTAVES = 7
    SIDE = 2**OCTAVES

    def pick(self, count: int, size: Size, rng: Rng) -> Tensor:
        draws = draw_rows(rng, count, 7)[..., None, None]
        color = between(draws[:, 0:1], 0.25, 0.75) + between(draws[:, 1:4], -0.2, 0.2)
        decay, contrast, veil = draws[:, 4:5], draws[:, 5:6], draws[:, 6:7]
        noise = self._octaves(count, between(decay, 0.5, 0.9), rng)
        shaded = color + between(contrast, 0.1, 0.3) * noise[:, :1]
        return (shaded + between(veil, 0, 0.1) * noise[:, 1:]).clamp(0, 1)

    def _octaves(self, count: int, decay: Tensor, rng: Rng) -> Tensor:
        """N 4 S S, each of mean 0 and standard deviation 1."""
        total = torch.zeros(count, 4, self.SIDE, self.SIDE)
        for octave in range(1, self.OCTAVES + 1):
            grid = draw_rows(rng, count, 4, 2**octave, 2**octave)
            total += decay**octave * F.interpolate(grid, (self.SIDE, self.SIDE), mode="bilinear")
        deviation, mean = torch.std_mean(total, (2, 3), keepdim=True)
        return (total - mean) / deviation
