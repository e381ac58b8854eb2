from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official
from PIL import Image
from udabench_gta5.dataset import Gta5

from udabench.data.doctor import diagnose
from udabench.errors import DataError
from udabench.labels import CITYSCAPES19, CITYSCAPES_IDS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two frames of different sizes, labels as palette PNGs that hold every id."""
    for i, (height, width) in enumerate([(10, 19), (9, 18)], 1):
        for part in ("images", "labels"):
            (tmp_path / part).mkdir(exist_ok=True)
        ids = (np.arange(height * width) % 35).astype(np.uint8)
        Image.fromarray(np.full((height, width, 3), i, np.uint8)).save(tmp_path / f"images/{i:05d}.png")
        label = Image.new("P", (width, height))
        label.putpalette([(7 * j) % 256 for j in range(768)])
        label.frombytes(ids.tobytes())
        label.save(tmp_path / f"labels/{i:05d}.png")
    return tmp_path


def test_ids_are_cityscapes() -> None:
    for label in official:
        assert CITYSCAPES_IDS[label.id] == (label.trainId if 0 <= label.trainId < 255 else 255), label.name
        if 0 <= label.trainId < 255:
            assert CITYSCAPES19.names[label.trainId] == label.name
            assert CITYSCAPES19.palette[label.trainId] == label.color
    assert Gta5.id_map[34] == 255


def test_reading(root) -> None:
    data = Gta5(root, "train")
    assert data.names == ("00001", "00002")
    assert data.read_image("00001").shape == (10, 19, 3)
    assert data.read_image("00002").shape == (9, 18, 3)
    train_ids = {label.id: label.trainId for label in official if label.id >= 0} | {34: 255}
    expected = [train_ids[i % 35] for i in range(190)]
    assert data.read_label("00001").ravel().tolist() == expected
    assert data.read_label("00001").dtype == np.uint8


def test_names_come_from_the_images_alone(root) -> None:
    (root / "labels/00002.png").unlink()
    data = Gta5(root, "train")
    assert len(data) == 2
    assert not data.has_label("00002")
    with pytest.raises(DataError, match=r"labels/00002\.png is missing"):
        data.read_label("00002")


def test_unexpected_ids_are_named(root) -> None:
    label = Image.new("L", (19, 10), 99)
    label.save(root / "labels/00001.png")
    with pytest.raises(DataError, match=r"labels/00001\.png holds the label id\(s\) 99"):
        Gta5(root, "train").read_label("00001")


def test_a_wrong_folder_shows_the_layout(tmp_path) -> None:
    with pytest.raises(DataError, match=r"no folder .*images(.|\n)*labels/00001\.png"):
        len(Gta5(tmp_path, "train"))


@pytest.mark.skipif("UDABENCH_DATA" not in os.environ, reason="needs UDABENCH_DATA")
def test_genuine_format() -> None:
    base = Path(os.environ["UDABENCH_DATA"])
    folder = next((f for f in (base / "gta5", base / "native/gta5") if f.is_dir()), None)
    if folder is None:
        pytest.skip("no gta5 folder")
    report = diagnose(Gta5(folder, "train"), limit=4)
    assert report.healthy
    assert report.pixels[0] > 0.2 * report.pixels.sum(), "a fifth of a street scene is road"
