"""Pictures that were translated beforehand, by whatever engine, found by sample name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Generator as Rng
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from udabench.data.files import read_rgb
from udabench.errors import DataError, UsageError
from udabench.method import Samples
from udabench.translate.base import Translator

SUFFIXES = (".png", ".jpg", ".jpeg")
NAMED = 5
"""Missing pictures that are named."""


class Folder(Translator):
    """Reads ``<path>/<name>.png`` (or .jpg, .jpeg): the whole translated image, at any size.

    It is resized, cut and flipped as its source image was.

    Args:
        path: the folder. Raises UsageError when it is missing.
    """

    paired = False

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        if not self.path.is_dir():
            raise UsageError(
                f"Translator 'folder' finds no folder '{path}'. Name one: translator_options={{path: ...}}."
            )

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        """A picture alone has no name: raises UsageError. Use :meth:`translate`."""
        raise UsageError("Translator 'folder' finds pictures by name; it cannot translate an image that has none.")

    def check(self, names: Sequence[str]) -> None:
        missing = [name for name in names if self._find(name) is None]
        if missing:
            some = ", ".join(f"'{name}'" for name in missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
            raise DataError(
                f"{self.path} lacks the translated pictures of {len(missing)} of {len(names)} training images: {some}. "
                f"Each is to be <name> with {', '.join(SUFFIXES)}."
            )

    def translate(self, source: Samples, target: Samples | None, rng: Rng) -> Tensor:
        height, width = source.image.shape[-2:]
        crops = [
            self._read(name, whole, box, (height, width), flipped)
            for name, whole, box, flipped in zip(
                source.names, source.whole.tolist(), source.box.tolist(), source.flipped.tolist(), strict=True
            )
        ]
        return torch.stack(crops).to(source.image.device)

    def _read(self, name: str, size: list[int], box: list[int], crop: tuple[int, int], flipped: bool) -> Tensor:
        image = V.resize(self._decode(name), size, antialias=True).float() / 255
        top, left, height, width = box
        cut: Tensor = V.crop(image, top, left, height, width)
        if cut.shape[-2:] != crop:
            cut = V.resize(cut, list(crop), antialias=True)
        return cut.flip(-1) if flipped else cut

    def _decode(self, name: str) -> Tensor:
        """3 H W uint8. Raises DataError that names the file."""
        file = self._find(name)
        if file is None:
            raise DataError(f"{self.path} holds no translated image '{name}' ({', '.join(SUFFIXES)}).")
        return torch.tensor(read_rgb(file)).permute(2, 0, 1)

    def _find(self, name: str) -> Path | None:
        files = (self.path / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((file for file in files if file.is_file()), None)
