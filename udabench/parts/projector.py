"""The projector of contrastive losses."""

from __future__ import annotations

from torch import nn


class Projector(nn.Sequential):
    """Two Conv-BN-ReLU blocks that keep the resolution (T2S-DA, section 4, Network architecture).

    The last ReLU makes every feature non-negative, so cosines lie in [0, 1].

    Args:
        channels: of the encoder's map.
        width: of both blocks.
        kernel: side of the convolutions, odd; no source states it.
    """

    def __init__(self, channels: int, width: int = 256, kernel: int = 1) -> None:
        super().__init__(*_block(channels, width, kernel), *_block(width, width, kernel))


def _block(channels: int, width: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)
