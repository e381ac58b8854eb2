from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from udabench.data.doctor import diagnose, spread
from udabench.data.show import grid, legend, overlay
from udabench.errors import DataError
from udabench.labels import CITYSCAPES19


def text(report: object) -> str:
    file = io.StringIO()
    Console(width=200, file=file).print(report)
    return file.getvalue()


def test_a_healthy_tree(make_gta5) -> None:
    data = make_gta5()
    told: list[tuple[int, int]] = []
    report = diagnose(data, progress=lambda done, total: told.append((done, total)))
    assert report.healthy
    assert (report.images, report.labelled, report.checked, report.usual) == (6, 6, 6, 24_966)
    assert dict(report.sizes) == {"100x60": 3, "96x58": 3}
    labels = [data.read_label(name) for name in data.names]
    whole = np.concatenate([label.ravel() for label in labels])
    np.testing.assert_array_equal(report.pixels, np.bincount(whole, minlength=256)[:19])
    np.testing.assert_array_equal(report.frames, [sum((label == c).any() for label in labels) for c in range(19)])
    assert report.unknown == int((whole == 255).sum())
    assert "train" in report.absent
    assert "road" not in report.absent
    assert told[-1] == (6, 6)
    page = text(report)
    assert "complete download has 24966" in page
    assert "No problem found" in page


def test_every_kind_of_damage_is_reported_at_once(make_gta5) -> None:
    data = make_gta5()
    root = data.root
    (root / "images/00001.png").write_bytes(b"")
    path = root / "images/00002.png"
    path.write_bytes(path.read_bytes()[:1000])
    (root / "labels/00003.png").unlink()
    strange = Image.new("P", (96, 58), 77)
    strange.putpalette([0] * 768)
    strange.save(root / "labels/00004.png")
    (root / "labels/00005.png").write_bytes((root / "labels/00006.png").read_bytes())
    report = diagnose(data)
    assert not report.healthy
    assert report.labelled == 5
    assert report.missing == (str(root / "labels/00003.png"),)
    found = "\n".join(report.problems)
    assert len(report.problems) == 4
    for part in ("00001.png is an empty file", "00002.png cannot be decoded", "label id(s) 77", "00005.png is 96x58"):
        assert part in found
    page = text(report)
    assert "needs mending" in page
    assert "00003.png" in page


def test_a_split_without_labels_can_be_adapted_to(make_gta5) -> None:
    data = make_gta5()
    for path in (data.root / "labels").iterdir():
        path.unlink()
    report = diagnose(data)
    assert report.healthy
    assert "can only be adapted to" in text(report)


def test_a_part_of_a_large_set(make_gta5) -> None:
    assert diagnose(make_gta5(), limit=2).checked == 2
    assert spread(10, 3) == [0, 4, 9]
    assert spread(2, 9) == [0, 1]


def test_overlay_by_hand() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    label = np.array([[0, 255]], np.uint8)
    # Road is (128, 64, 128): 0.5 * 100 + 0.5 * colour; an unknown pixel stays.
    np.testing.assert_array_equal(overlay(image, label, CITYSCAPES19, 0.5), [[[114, 82, 114], [100, 100, 100]]])


def test_the_grid_shows_samples_and_every_class(make_gta5) -> None:
    data = make_gta5()
    page = grid(data, count=3, columns=2, width=100)
    tiles = 2 * (60 + 20 + 4)
    assert page.width == 2 * (200 + 4)
    assert page.height == tiles + legend(CITYSCAPES19, page.width).height
    np.testing.assert_array_equal(np.asarray(page)[20:80, :100], data.read_image("00001"))
    colours = {tuple(c) for c in np.asarray(legend(CITYSCAPES19, 300)).reshape(-1, 3).tolist()}
    assert set(CITYSCAPES19.palette) <= colours


def test_a_grid_of_chosen_names_and_of_images_without_labels(make_gta5) -> None:
    data = make_gta5()
    (data.root / "labels/00002.png").unlink()
    page = np.asarray(grid(data, names=["00002"], width=96))
    np.testing.assert_array_equal(page[20:78, :96], page[20:78, 96:192])
    (data.root / "images/00002.png").unlink()
    with pytest.raises(DataError, match="is missing"):
        grid(data, names=["00002"])
