from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from udabench.data.files import keep_listed, list_files, read_ids, read_ids16, read_lines, read_rgb
from udabench.errors import DataError


def picture(path: Path, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    shape = (40, 30, 3) if mode == "RGB" else (40, 30)
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("left", [0, 3, 60, 0.5])
def test_empty_and_truncated_images_are_named(tmp_path, ending, left) -> None:
    path = picture(tmp_path / f"a.{ending}")
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if isinstance(left, float) else left])
    with pytest.raises(DataError, match=rf"a\.{ending} .*(empty file|cannot be decoded)"):
        read_rgb(path)


def test_truncated_16_bit_labels_are_named(tmp_path) -> None:
    path = tmp_path / "a.png"
    data = imagecodecs.png_encode(np.random.default_rng(0).integers(0, 23, (40, 30, 3)).astype(np.uint16))
    for left in (0, 5, 50, len(data) // 2):
        path.write_bytes(data[:left])
        with pytest.raises(DataError, match=r"a\.png .*(empty file|cannot be decoded)"):
            read_ids16(path)


def test_text_is_no_image(tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_text("404 not found")
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        read_rgb(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    for read in (read_rgb, read_ids, read_ids16):
        with pytest.raises(DataError, match=r"nothing\.png is missing"):
            read(tmp_path / "nothing.png")


def test_a_grey_image_becomes_rgb(tmp_path) -> None:
    assert read_rgb(picture(tmp_path / "a.png", "L")).shape == (40, 30, 3)


def test_a_coloured_label_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"mode RGB, not 8-bit grey or palette"):
        read_ids(picture(tmp_path / "a.png"))
    with pytest.raises(DataError, match="not a 16-bit PNG"):
        read_ids16(picture(tmp_path / "a.png"))


def test_palette_indices_are_read_not_colours(tmp_path) -> None:
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.new("P", (4, 3))
    image.putpalette([200 - i // 3 for i in range(768 // 2)])
    image.frombytes(label.tobytes())
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), label)


def test_listing(tmp_path) -> None:
    with pytest.raises(DataError, match=r"no folder .*images\.\s*Expected layout:\nTHE LAYOUT"):
        list_files(tmp_path / "images", ".png", "THE LAYOUT")
    (tmp_path / "images/city").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no file that ends in \.png"):
        list_files(tmp_path / "images", ".png")
    for name in ("b.png", "city/a.png", "._b.png", "c.txt"):
        (tmp_path / "images" / name).write_text("")
    assert list_files(tmp_path / "images", ".png") == ["b.png", "city/a.png"]


def test_filter_lists(tmp_path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("images/c.png\na.png\n\n")
    assert keep_listed(["a", "b", "c"], path) == ["a", "c"]
    path.write_text("images/b.png\tlabels/b_gt.png\na.png \ta_gt.png\n")
    assert keep_listed(["a", "b", "c"], path) == ["a", "b"]
    path.write_text("images/c.png\na.png\n\n")
    with pytest.raises(DataError, match=r"names 1 sample\(s\) that do not exist, such as 'c'"):
        keep_listed(["a", "b"], path)
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        keep_listed(["a"], path)
    with pytest.raises(DataError, match=r"Cannot read the list .*nothing"):
        read_lines(tmp_path / "nothing")
