from __future__ import annotations

import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from udabench_synthia.dataset import Synthia

from udabench.data.doctor import diagnose
from udabench.errors import DataError
from udabench.labels import CITYSCAPES19, SIXTEEN

SYNTHIA_NAMES = (
    "void", "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign", "person",
    "bicycle", "motorcycle", "parking slot", "road work", "traffic light", "terrain", "rider", "truck", "bus", "train",
    "wall", "lane marking",
)  # fmt: skip
"""By id, as the data set's own readme lists them (pedestrian written as Cityscapes does)."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """16-bit RGB label PNGs: class, instance, nothing."""
    (tmp_path / "RGB").mkdir()
    (tmp_path / "GT/LABELS").mkdir(parents=True)
    ids = (np.arange(12 * 20) % 23).reshape(12, 20).astype(np.uint16)
    pixels = np.stack((ids, np.full_like(ids, 1234), np.zeros_like(ids)), axis=-1)
    (tmp_path / "GT/LABELS/0000001.png").write_bytes(imagecodecs.png_encode(pixels))
    Image.fromarray(np.zeros((12, 20, 3), np.uint8)).save(tmp_path / "RGB/0000001.png")
    return tmp_path


def test_ids_match_by_name() -> None:
    for native, name in enumerate(SYNTHIA_NAMES):
        expected = CITYSCAPES19.names.index(name) if name in CITYSCAPES19.names else 255
        assert Synthia.id_map[native] == expected, name
    assert set(Synthia.id_map) == set(range(23))


def test_the_absent_classes() -> None:
    absent = set(range(19)) - set(Synthia.present)
    assert {CITYSCAPES19.names[c] for c in absent} == {"terrain", "truck", "train"}
    assert Synthia.present == SIXTEEN


def test_the_class_is_the_first_rgb_channel(root) -> None:
    data = Synthia(root, "train")
    ids = data.read_ids("0000001")
    np.testing.assert_array_equal(ids, (np.arange(240) % 23).reshape(12, 20))
    expected = [CITYSCAPES19.names.index(n) if n in CITYSCAPES19.names else 255 for n in SYNTHIA_NAMES]
    np.testing.assert_array_equal(data.read_label("0000001"), np.array(expected)[ids])


def test_a_list_of_names(root) -> None:
    Image.fromarray(np.zeros((12, 20, 3), np.uint8)).save(root / "RGB/0000002.png")
    (root / "list.txt").write_text("0000002.png\n")
    assert Synthia(root, "train", list_file=str(root / "list.txt")).names == ("0000002",)
    (root / "list.txt").write_text("0000003.png\n")
    with pytest.raises(DataError, match=r"list\.txt names 1 sample\(s\) that do not exist, such as '0000003'"):
        len(Synthia(root, "train", list_file=str(root / "list.txt")))


def test_pillow_alone_would_lose_the_classes(root) -> None:
    """The reason for another decoder; if this fails one day, Pillow has learnt it."""
    with Image.open(root / "GT/LABELS/0000001.png") as picture:
        assert np.asarray(picture)[..., 0].max() == 0


def test_an_8_bit_colour_label_is_refused(root) -> None:
    Image.fromarray(np.zeros((12, 20, 3), np.uint8)).save(root / "GT/LABELS/0000001.png")
    with pytest.raises(DataError, match=r"LABELS/0000001\.png is uint8 .* not a 16-bit PNG"):
        Synthia(root, "train").read_label("0000001")


def test_a_missing_label_and_an_unexpected_id(root) -> None:
    path = root / "GT/LABELS/0000001.png"
    path.write_bytes(imagecodecs.png_encode(np.full((12, 20, 3), 300, np.uint16)))
    with pytest.raises(DataError, match=r"0000001\.png holds the label id\(s\) 300"):
        Synthia(root, "train").read_label("0000001")
    path.unlink()
    assert not Synthia(root, "train").has_label("0000001")
    with pytest.raises(DataError, match=r"0000001\.png is missing"):
        Synthia(root, "train").read_label("0000001")


def test_a_wrong_folder_says_which_subset(tmp_path) -> None:
    assert "SYNTHIA-RAND-CITYSCAPES" in Synthia.obtain
    with pytest.raises(DataError, match=r"no folder .*RGB(.|\n)*GT/LABELS"):
        len(Synthia(tmp_path, "train"))


@pytest.mark.skipif("UDABENCH_DATA" not in os.environ, reason="needs UDABENCH_DATA")
def test_genuine_format() -> None:
    base = Path(os.environ["UDABENCH_DATA"])
    folder = next((f for f in (base / "synthia", base / "native/synthia") if f.is_dir()), None)
    if folder is None:
        pytest.skip("no synthia folder")
    report = diagnose(Synthia(folder, "train"), limit=4)
    assert report.healthy
    assert dict(report.sizes) == {"1280x760": report.checked}
    assert report.pixels[0] > 0.1 * report.pixels.sum()
