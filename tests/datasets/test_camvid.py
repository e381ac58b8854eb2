from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from udabench_camvid.dataset import CAMVID11, CamVid, CamVidDay, CamVidDusk

from udabench.errors import DataError
from udabench.labels import CITYSCAPES19
from udabench.size import Size
from udabench.task import choose_task

genuine = pytest.mark.skipif(
    not (Path(os.environ.get("UDABENCH_DATA", "/nowhere")) / "camvid").is_dir(), reason="needs UDABENCH_DATA/camvid"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    frames = {"train": ["0001TP_1", "0006R0_1", "0016E5_1"], "val": ["0016E5_2"], "test": ["0001TP_9", "Seq05VD_1"]}
    for split, names in frames.items():
        lines = []
        for name in names:
            lines.append(f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png")
            for folder, pixels in ((split, np.zeros((5, 6, 3))), (f"{split}annot", np.arange(30).reshape(5, 6) % 12)):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{name}.png")
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_reading(root) -> None:
    data = CamVid(root, "train")
    assert data.names == ("0001TP_1", "0006R0_1", "0016E5_1")
    assert data.read_image("0001TP_1").shape == (5, 6, 3)
    assert data.read_label("0001TP_1").ravel()[:12].tolist() == [*range(11), 255]


def test_day_and_dusk_share_nothing(root) -> None:
    assert CamVidDay(root, "train").names == ("0006R0_1", "0016E5_1")
    assert CamVidDay(root, "val").names == ("0016E5_2",)
    assert CamVidDay(root, "test").names == ("Seq05VD_1",)
    assert CamVidDusk(root, "train").names == ("0001TP_1",)
    assert CamVidDusk(root, "val").names == ("0001TP_9",)
    assert CamVidDusk(root, "val").read_label("0001TP_9").shape == (5, 6)


def test_a_line_that_is_no_pair(root) -> None:
    (root / "val.txt").write_text("val/a.png\n")
    with pytest.raises(DataError, match=r"val\.txt must hold one 'image label' pair a line, not 'val/a\.png'"):
        len(CamVid(root, "val"))


def test_a_missing_list_and_a_missing_label(root) -> None:
    (root / "trainannot/0006R0_1.png").unlink()
    with pytest.raises(DataError, match=r"trainannot/0006R0_1\.png is missing"):
        CamVid(root, "train").read_label("0006R0_1")
    (root / "train.txt").unlink()
    with pytest.raises(DataError, match=r"Cannot read the list .*train\.txt"):
        len(CamVid(root, "train"))


def test_a_task_from_cityscapes_labels_has_eleven_classes() -> None:
    class Street(CamVid):
        label_space = CITYSCAPES19

    assert choose_task("street", "camvid", Street, CamVid).classes is CAMVID11
    assert choose_task("camvid-day", "camvid-dusk", CamVidDay, CamVidDusk).headline == "mIoU11"
    assert CamVidDay.default_preset == "quick"
    assert CamVidDay.train_size == Size(height=360, width=480)


@genuine
def test_classes_are_those_of_the_tables() -> None:
    folder = Path(os.environ["UDABENCH_DATA"]) / "camvid"
    with (folder / "classes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"] != "Unlabelled"]
    assert list(CAMVID11.palette) == [(int(row["r"]), int(row["g"]), int(row["b"])) for row in rows]
    assert [name[:4] for name in CAMVID11.names] == [row["name"][:4].lower() for row in rows]
    with (folder / "cityscapes19_to_camvid11.csv").open() as file:
        table = {int(row["cityscapes_train_id"]): int(row["camvid_index"]) for row in csv.DictReader(file)}
    assert list(CAMVID11.lookup(CITYSCAPES19)[:19]) == [table[i] for i in range(19)]


@genuine
@pytest.mark.parametrize(
    ("data", "split", "lines"),
    [
        (CamVidDay, "train", "source_day_train"),
        (CamVidDay, "val", "source_day_val"),
        (CamVidDay, "test", "source_day_test"),
        (CamVidDusk, "train", "target_dusk_train"),
        (CamVidDusk, "val", "target_dusk_test"),
    ],
)
def test_the_split_is_the_listed_one(data, split, lines) -> None:
    folder = Path(os.environ["UDABENCH_DATA"]) / "camvid"
    pairs = (folder / f"uda_day2dusk/{lines}.txt").read_text().split()[::2]
    opened = data(folder, split)
    assert opened.names == tuple(Path(pair).stem for pair in pairs)
    assert len(opened) == data.usual_counts[split]
    name = opened.names[0]
    assert opened.read_image(name).shape == (360, 480, 3)
    assert opened.read_label(name).shape == (360, 480)
