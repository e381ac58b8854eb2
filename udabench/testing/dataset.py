"""Two small data sets in a real layout on disk: every file can be deleted, emptied or exchanged by a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from udabench.data.files import list_files, read_ids, read_rgb
from udabench.dataset import Dataset, Pixels
from udabench.labels import CITYSCAPES19, IGNORE
from udabench.size import Size

SIZE = Size(height=32, width=64)
COUNTS: Mapping[str, int] = {"train": 6, "val": 2}
SOURCE, TARGET = "fake-source", "fake-target"
Look = Literal["source", "target"]


class FakeDataset(Dataset):
    """Blocks of colour with 19 classes, labels as train ids; made by :func:`write_fake_dataset`."""

    root: Path
    label_space = CITYSCAPES19
    id_map: ClassVar[Mapping[int, int]] = {**{i: i for i in range(19)}, IGNORE: IGNORE}
    train_size = SIZE
    layout = """\
  images/{train,val}/<name>.png
  labels/{train,val}/<name>.png"""
    obtain = "udabench.testing.write_fake_dataset(folder)."

    def list_names(self) -> Sequence[str]:
        files = list_files(self.root / "images" / self.split, ".png", self.layout)
        return [file.removesuffix(".png") for file in files]

    def read_image(self, name: str) -> Pixels:
        return read_rgb(self.root / "images" / self.split / f"{name}.png")

    def read_ids(self, name: str) -> npt.NDArray[np.integer]:
        return read_ids(Path(self.label_path(name)))

    def has_label(self, name: str) -> bool:
        return Path(self.label_path(name)).is_file()

    def label_path(self, name: str) -> str:
        return str(self.root / "labels" / self.split / f"{name}.png")


class FakeSource(FakeDataset):
    """Registered as ``fake-source``."""


class FakeTarget(FakeDataset):
    """Registered as ``fake-target``: darker, tinted and noisier."""


def write_fake_dataset(folder: Path, look: Look = "source", counts: Mapping[str, int] = COUNTS, seed: int = 0) -> Path:
    """Write images and labels of every split; returns ``folder``. The same files for the same arguments."""
    for split, count in counts.items():
        for index in range(count):
            label, image = _draw(np.random.default_rng([seed, index, split == "val", look == "target"]), look)
            for kind, pixels in (("images", image), ("labels", label)):
                path = folder / kind / split / f"{look}_{split}_{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return folder


def write_fake_data(base: Path) -> Path:
    """Both data sets as ``base/fake-source`` and ``base/fake-target``: what ``UDABENCH_DATA`` may name."""
    write_fake_dataset(base / SOURCE, "source")
    write_fake_dataset(base / TARGET, "target")
    return base


def delete_labels(root: Path, split: str = "train") -> None:
    """Remove a split's label files from a fake data set's folder."""
    for path in (root / "labels" / split).glob("*.png"):
        path.unlink()


def _draw(rng: np.random.Generator, look: Look) -> tuple[Pixels, Pixels]:
    """Label and image: 8x8 blocks of a class in its colour, a hundredth of the pixels unknown."""
    blocks = rng.integers(19, size=(SIZE.height // 8, SIZE.width // 8), dtype=np.uint8)
    label = blocks.repeat(8, axis=0).repeat(8, axis=1)
    color = np.array(CITYSCAPES19.palette, np.float64)[label]
    if look == "target":
        color = 0.6 * color + np.array([30.0, 10.0, 0.0])
    noise = rng.normal(0, 20 if look == "target" else 8, color.shape)
    label[rng.random(label.shape) < 0.01] = IGNORE
    return label, np.clip(color + noise, 0, 255).astype(np.uint8)
