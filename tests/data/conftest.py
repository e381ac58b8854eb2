"""Small trees in the genuine GTA5 layout, and a data set whose pixels tell where they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from udabench_gta5.dataset import Gta5

from udabench.dataset import Dataset, Pixels
from udabench.labels import CITYSCAPES19
from udabench.size import Size

MakeGta5 = Callable[..., Gta5]


@pytest.fixture
def make_gta5(tmp_path: Path) -> MakeGta5:
    """``make_gta5(folder, count, seed)``: palette labels, images of two sizes."""

    def make(folder: str = "gta5", count: int = 6, seed: int = 0) -> Gta5:
        root = tmp_path / folder
        rng = np.random.default_rng(seed)
        for part in ("images", "labels"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for i in range(1, count + 1):
            height, width = (60, 100) if i % 2 else (58, 96)
            Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(root / f"images/{i:05d}.png")
            blocks = rng.choice([0, 7, 8, 11, 26, 33, 34], (6, 8)).astype(np.uint8)
            label = np.kron(blocks, np.ones((10, 13), np.uint8))[:height, :width]
            picture = Image.new("P", (width, height))
            picture.putpalette(list(range(256)) * 3)
            picture.frombytes(label.tobytes())
            picture.save(root / f"labels/{i:05d}.png")
        return Gta5(root, "train")

    return make


class Coordinates(Dataset):
    """Red is the row, green the column, blue the sample; the label is (row + column) % 19."""

    label_space = CITYSCAPES19
    id_map = {i: i for i in range(19)}  # noqa: RUF012
    train_size = Size(height=64, width=96)
    needs_root = False

    def __init__(self, root: Path | None = None, split: str = "train", count: int = 5) -> None:
        super().__init__(root, split)
        self.count = count

    def list_names(self) -> list[str]:
        return [f"sample{i}" for i in range(self.count)]

    def read_image(self, name: str) -> Pixels:
        image = np.zeros((64, 96, 3), np.uint8)
        image[..., 0] = np.arange(64)[:, None]
        image[..., 1] = np.arange(96)
        image[..., 2] = int(name.removeprefix("sample"))
        return image

    def read_ids(self, name: str) -> Pixels:
        return ((np.arange(64)[:, None] + np.arange(96)) % 19).astype(np.uint8)


@pytest.fixture
def coordinates() -> type[Coordinates]:
    return Coordinates
