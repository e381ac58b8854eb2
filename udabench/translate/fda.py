"""Fourier domain adaptation (Yang and Soatto, 2020): low-frequency amplitudes of the target, phases of the source."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F

from udabench.errors import UsageError
from udabench.size import Size
from udabench.translate.base import Translator
from udabench.translate.draws import partners
from udabench.translate.styles import PROCEDURAL, open_styles

Window = Literal["symmetric", "corner"]


class FDA(Translator):
    """:func:`fda` as a translation engine.

    Args:
        beta: half side of the window over the shorter side of the image; 0.01, 0.05 and 0.09 in the paper.
        window: see :func:`fda`.
        clamp: cut the result to [0, 1]; the original does not.
    """

    def __init__(self, beta: float = 0.01, window: Window = "symmetric", clamp: bool = True) -> None:
        super().__init__()
        if not 0 <= beta <= 0.5:
            raise UsageError(f"FDA's beta = {beta}: it must lie in 0 to 0.5 (share of the shorter side).")
        if window not in get_args(Window):
            raise UsageError(f"FDA's window = '{window}': choose {' or '.join(get_args(Window))}.")
        self.beta, self.window, self.clamp = beta, window, clamp

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        if target is None:
            raise ValueError("FDA needs target images")
        style = target[partners(len(source), len(target), target.device)]
        result = fda(source, style, self.beta, self.window)
        return result.clamp(0, 1) if self.clamp else result


class FDAStyle(FDA):
    """FDA without a target: each image gets the low frequencies of a style picture of its own (Domain-A of Kundu et
    al., 2021).

    Args:
        styles: a folder of pictures, or ``procedural``: textures that are made up for each image.
        beta, window, clamp: as for :class:`FDA`.
    """

    paired = False

    def __init__(
        self, styles: str = PROCEDURAL, beta: float = 0.01, window: Window = "symmetric", clamp: bool = True
    ) -> None:
        super().__init__(beta, window, clamp)
        self.styles = open_styles(styles)

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        pictures = self.styles.pick(len(source), Size(*source.shape[-2:]), rng)
        return super().forward(source, pictures.to(source.device), rng)


def fda(source: Tensor, target: Tensor, beta: float, window: Window = "symmetric") -> Tensor:
    """Swap the amplitudes of the low frequencies, ``|f| <= b = floor(beta * min(H, W))``, channel by channel.

    Args:
        source, target: N 3 H W, raw (not normalised); a target of another size is resized to the source's.
        beta: half side of the window.
        window: ``symmetric``: frequencies -b to b, as the paper's figure and the NumPy code have it (b = 0 swaps the
            mean colour); ``corner``: -b to b - 1, as in the training code, whose result is the real part of a
            spectrum that is not Hermitian (b = 0 does nothing).

    Returns:
        N 3 H W, not clamped; float32, also under autocast.
    """
    with torch.autocast(source.device.type, enabled=False):
        source, target = source.float(), target.float()
        if target.shape[-2:] != source.shape[-2:]:
            target = F.interpolate(target, source.shape[-2:], mode="bilinear", antialias=True)
        reach = math.floor(min(source.shape[-2:]) * beta)
        swap = _swap_symmetric if window == "symmetric" else _swap_corner
        return swap(source, target, reach)


def _swap_symmetric(source: Tensor, target: Tensor, reach: int) -> Tensor:
    height, width = source.shape[-2:]
    # The half spectrum of a real image holds columns 0 to W/2; the other half is its mirror.
    columns = min(reach, width // 2) + 1
    rows = _low_rows(height, reach, reach, source.device)
    spectrum = torch.fft.rfft2(source)
    change = torch.zeros_like(spectrum)
    change[..., rows, :columns] = _amplitude_change(
        spectrum[..., rows, :columns], torch.fft.rfft2(target)[..., rows, :columns]
    )
    # By linearity only the change is transformed back: equal amplitudes return the image itself.
    added: Tensor = torch.fft.irfft2(change, s=(height, width))
    return source + added


def _swap_corner(source: Tensor, target: Tensor, reach: int) -> Tensor:
    height, width = source.shape[-2:]
    rows = _low_rows(height, reach - 1, reach, source.device).unsqueeze(1)
    columns = _low_rows(width, reach - 1, reach, source.device)
    spectrum = torch.fft.fft2(source)
    change = torch.zeros_like(spectrum)
    low = _amplitude_change(spectrum[..., rows, columns], torch.fft.fft2(target)[..., rows, columns])
    change[..., rows, columns] = low
    added: Tensor = torch.fft.ifft2(change).real
    return source + added


def _low_rows(length: int, up_to: int, down_to: int, device: torch.device) -> Tensor:
    """Indices of the frequencies ``-down_to`` to ``up_to``, each once."""
    frequencies = torch.arange(-down_to, up_to + 1, device=device)
    return frequencies[:length] % length


def _amplitude_change(source: Tensor, target: Tensor) -> Tensor:
    """What must be added to give the source the target's amplitude at its own phase (0 where it has none)."""
    return torch.polar(target.abs() - source.abs(), source.angle())
