from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from udabench_cityscapes.dataset import Cityscapes

from udabench.data.doctor import diagnose
from udabench.errors import DataError, UserError

AACHEN = "aachen_000000_000019"


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One frame in two cities of train, one of val, one of test; train has labelIds, val both kinds."""
    ids = (np.arange(8 * 16) % 34).reshape(8, 16)
    for split, city, name in [
        ("train", "aachen", AACHEN),
        ("train", "zurich", "zurich_000001_000019"),
        ("val", "frankfurt", "frankfurt_000000_000294"),
        ("test", "berlin", "berlin_000000_000019"),
    ]:
        write(tmp_path / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", np.full((8, 16, 3), 9))
        if split != "test":
            write(tmp_path / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png", ids)
    return tmp_path


def test_names_and_reading(root) -> None:
    data = Cityscapes(root, "train")
    assert data.names == (AACHEN, "zurich_000001_000019")
    assert data.read_image(AACHEN).shape == (8, 16, 3)
    label = data.read_label(AACHEN).ravel()
    assert label[[7, 8, 11, 26, 33]].tolist() == [0, 1, 2, 13, 18]
    assert set(label[[0, 6, 9, 14, 29]].tolist()) == {255}


def test_the_license_plate_is_ignored_not_an_error(root) -> None:
    write(root / f"gtFine/train/aachen/{AACHEN}_gtFine_labelIds.png", np.full((8, 16), 255))
    assert (Cityscapes(root, "train").read_label(AACHEN) == 255).all()
    assert Cityscapes.id_map[-1] == 255


def test_a_target_without_any_label_file(root) -> None:
    shutil.rmtree(root / "gtFine")
    data = Cityscapes(root, "train")
    assert len(data) == 2
    assert data.read_image(data.names[0]).any()
    assert not data.has_label(AACHEN)
    with pytest.raises(DataError, match=rf"gtFine/train/aachen/{AACHEN}_gtFine_labelIds\.png is missing"):
        data.read_label(AACHEN)


def test_train_ids_serve_where_label_ids_are_missing(root) -> None:
    folder = root / "gtFine/train/aachen"
    expected = Cityscapes(root, "train").read_label(AACHEN)
    write(folder / f"{AACHEN}_gtFine_labelTrainIds.png", expected)
    (folder / f"{AACHEN}_gtFine_labelIds.png").unlink()
    data = Cityscapes(root, "train")
    assert data.has_label(AACHEN)
    np.testing.assert_array_equal(data.read_label(AACHEN), expected)
    write(folder / f"{AACHEN}_gtFine_labelTrainIds.png", np.full((8, 16), 19))
    with pytest.raises(DataError, match=r"labelTrainIds\.png holds the train id\(s\) 19"):
        data.read_label(AACHEN)


def test_label_ids_win_where_both_are_there(root) -> None:
    write(root / f"gtFine/train/aachen/{AACHEN}_gtFine_labelTrainIds.png", np.zeros((8, 16)))
    assert Cityscapes(root, "train").read_label(AACHEN).max() == 255


def test_the_test_split_has_no_labels(root) -> None:
    data = Cityscapes(root, "test")
    assert data.names == ("berlin_000000_000019",)
    assert not data.has_label(data.names[0])
    with pytest.raises(DataError, match="not public"):
        data.read_label(data.names[0])


def test_an_unknown_split(root) -> None:
    with pytest.raises(UserError, match="train, val, test"):
        Cityscapes(root, "trainval")


@pytest.mark.skipif("UDABENCH_DATA" not in os.environ, reason="needs UDABENCH_DATA")
@pytest.mark.parametrize("split", ["train", "val"])
def test_genuine_format(split) -> None:
    base = Path(os.environ["UDABENCH_DATA"])
    folder = next((f for f in (base / "cityscapes", base / "native/cityscapes") if f.is_dir()), None)
    if folder is None:
        pytest.skip("no cityscapes folder")
    data = Cityscapes(folder, split)
    report = diagnose(data, limit=4)
    assert report.healthy
    assert report.pixels[0] > 0.1 * report.pixels.sum()
    name = data.names[0]
    train_ids = Path(data.label_path(name).replace("labelIds", "labelTrainIds"))
    if split == "val" and train_ids.is_file():
        with Image.open(train_ids) as picture:
            # Not equal: where a copy was shrunk, the two files were shrunk separately, and borders differ.
            assert (data.read_label(name) == np.asarray(picture)).mean() > 0.99
