"""Pictures to translate and to take the look from: a file, a folder, a data set; and the page to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Generator as Rng
from torch import Tensor

from udabench.data.doctor import spread
from udabench.data.files import open_image, read_rgb
from udabench.data.locate import open_dataset
from udabench.data.resize import resize_image
from udabench.data.show import GAP, LINE
from udabench.data.whole import whole_images
from udabench.dataset import Pixels
from udabench.errors import UsageError, unknown
from udabench.registry import Registry
from udabench.size import Size
from udabench.translate.base import Translator
from udabench.translate.styles import SUFFIXES


@dataclass(frozen=True)
class Pictures:
    """Pictures by name (relative to a folder, without suffix), read when they are asked for.

    Attributes:
        files: where they lie; empty for a data set.
    """

    names: tuple[str, ...]
    read: Callable[[str], Pixels]
    files: tuple[Path, ...] = ()

    def evenly(self, count: int) -> list[str]:
        """At most ``count`` names, evenly spread."""
        return [self.names[i] for i in spread(len(self.names), count)]


def open_pictures(what: str, split: str, registry: Registry, roots: Mapping[str, Path]) -> Pictures:
    """A file, a folder, or a split of a data set.

    Raises:
        UsageError: there is nothing of that name, or a folder without pictures.
        DataError: the data set's files are not as expected.
    """
    path = Path(what).expanduser()
    if path.is_dir():
        return _of_files({_name(p, path): p for p in sorted(path.rglob("*")) if _is_picture(p)}, what)
    if path.is_file():
        return _of_files({path.stem: path}, what)
    known = registry.datasets.names()
    if what not in known:
        raise unknown("picture, folder or data set", what, known)
    dataset = open_dataset(registry, what, split, roots)
    return Pictures(dataset.names, lambda name: open_image(dataset, name))


def _is_picture(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _of_files(files: Mapping[str, Path], what: str) -> Pictures:
    if not files:
        raise UsageError(f"The folder {what} holds no pictures ({', '.join(SUFFIXES)}).")
    return Pictures(tuple(files), lambda name: read_rgb(files[name]), tuple(files.values()))


def translate_picture(
    translator: Translator, name: str, image: Pixels, style: Pixels | None, rng: Rng, device: torch.device
) -> Pixels:
    """One whole picture: H W 3 uint8. ``style`` may be of another size."""
    source = whole_images(_tensor(image, device), (name,))
    target = None if style is None else whole_images(_tensor(style, device))
    with torch.inference_mode():
        translated = translator.translate(source, target, rng)[0]
    return (translated.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _tensor(image: Pixels, device: torch.device) -> Tensor:
    return torch.tensor(image, device=device).permute(2, 0, 1)[None] / 255


def save_page(file: Path, pictures: Sequence[tuple[str, Pixels | None]]) -> None:
    """Titled pictures side by side; those that are None left out."""
    file.parent.mkdir(parents=True, exist_ok=True)
    side_by_side([(title, pixels) for title, pixels in pictures if pixels is not None]).save(file)


def side_by_side(pictures: Sequence[tuple[str, Pixels]]) -> Image.Image:
    """Titled pictures in a row, all as high as the first."""
    height = pictures[0][1].shape[0]
    scaled = [_scaled(pixels, height) for _, pixels in pictures]
    page = Image.new("RGB", (sum(p.shape[1] + GAP for p in scaled) - GAP, LINE + height), "white")
    draw, font, left = ImageDraw.Draw(page), ImageFont.load_default(size=13), 0
    for (title, _), pixels in zip(pictures, scaled, strict=True):
        page.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, LINE))
        draw.text((left + 2, 2), title, fill="black", font=font)
        left += pixels.shape[1] + GAP
    return page


def _scaled(pixels: Pixels, height: int) -> Pixels:
    return resize_image(pixels, Size(height, max(1, round(pixels.shape[1] * height / pixels.shape[0]))))
