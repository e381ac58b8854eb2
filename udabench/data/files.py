"""Listing folders and decoding pictures. Every failure is a DataError that names the file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from udabench.dataset import Dataset, Pixels, Unlabelled
from udabench.errors import DataError

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on empty, truncated or foreign files."""


def list_files(folder: Path, suffix: str, layout: str = "") -> list[str]:
    """Paths below ``folder`` that end in ``suffix``, relative to it with ``/``, sorted; hidden files are left out.

    Raises:
        DataError: the folder is missing or holds no such file.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.{_expected(layout)}")
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob(f"*{suffix}") if not p.name.startswith("."))
    if not found:
        raise DataError(f"The folder {folder} holds no file that ends in {suffix}.{_expected(layout)}")
    return found


def read_lines(path: Path, layout: str = "") -> list[str]:
    """The lines of a list file that are not empty. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read the list {path}: {_reason(error)}.{_expected(layout)}") from error
    return [line.strip() for line in lines if line.strip()]


def keep_listed(names: Sequence[str], path: Path) -> list[str]:
    """Those of ``names`` that a text file lists, in the order of ``names``: one name or file a line; what stands behind
    a tab (the label's file, in CRST's lists) is passed over.

    Raises:
        DataError: the file cannot be read, or lists a name that does not exist.
    """
    wanted = {Path(line.split("\t")[0].strip()).stem for line in read_lines(path)}
    missing = wanted - set(names)
    if missing or not wanted:
        raise DataError(
            f"The list {path} names {len(missing)} sample(s) that do not exist, such as '{min(missing)}'."
            if missing
            else f"The list {path} is empty."
        )
    return [name for name in names if name in wanted]


def read_rgb(path: Path) -> Pixels:
    """H W 3, RGB, uint8, of any 8-bit picture. Raises DataError that names the file."""
    picture = _open(path, "image")
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def read_ids(path: Path) -> Pixels:
    """H W, uint8: the values of a grey PNG, or the palette indices of a coloured one. Raises DataError."""
    picture = _open(path, "label")
    if picture.mode not in ("L", "P"):
        raise DataError(
            f"The label {path} is a picture of mode {picture.mode}, not 8-bit grey or palette: it holds colours, "
            "not label ids. Get the original label files."
        )
    return np.asarray(picture)


def read_ids16(path: Path, channel: int = 0) -> npt.NDArray[np.integer]:
    """H W: one channel of a 16-bit multi-channel PNG, which Pillow would cut down to 8 bits. Raises DataError."""
    data = _bytes(path, "label")
    try:
        pixels: npt.NDArray[np.integer] = imagecodecs.png_decode(data)
    # imagecodecs raises its own PngError or a ValueError, depending on where the stream breaks.
    except Exception as error:
        raise DataError(f"The label {path} cannot be decoded: {_reason(error)}. Is it a whole PNG?") from error
    if pixels.ndim != 3 or pixels.shape[2] <= channel or pixels.dtype != np.uint16:
        raise DataError(
            f"The label {path} is {pixels.dtype} of shape {pixels.shape}, not a 16-bit PNG with several channels. "
            "Get the original label files."
        )
    return np.ascontiguousarray(pixels[..., channel])


def open_image(data: Dataset | Unlabelled, name: str) -> Pixels:
    """A sample's image, H W 3 uint8. Raises DataError naming the sample, whatever its data set's reader raised."""
    try:
        image = data.read_image(name)
    except _BROKEN as error:
        raise DataError(f"The image of '{name}' cannot be read: {_reason(error)}.") from error
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"The image of '{name}' has the shape {image.shape} and type {image.dtype}; not H W 3, uint8.")
    return image


def open_label(data: Dataset, name: str) -> Pixels:
    """A sample's label, H W uint8. Raises DataError naming the sample, whatever its data set's reader raised."""
    try:
        return data.read_label(name)
    except _BROKEN as error:
        raise DataError(f"{data.label_path(name)} cannot be read: {_reason(error)}.") from error


def check_same_size(image: Pixels, label: npt.NDArray[np.integer], name: str, label_path: str) -> None:
    """Raises DataError when a label is of another size than its image."""
    if image.shape[:2] != label.shape[:2]:
        (height, width), (rows, columns) = image.shape[:2], label.shape[:2]
        raise DataError(
            f"{label_path} is {columns}x{rows} but its image '{name}' is {width}x{height}. They do not belong together."
        )


def _open(path: Path, what: str) -> Image.Image:
    _check_there(path, what)
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except _BROKEN as error:
        raise DataError(f"The {what} {path} cannot be decoded: {_reason(error)}. Get this file again.") from error


def _bytes(path: Path, what: str) -> bytes:
    _check_there(path, what)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The {what} {path} cannot be read: {_reason(error)}.") from error


def _check_there(path: Path, what: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"The {what} {path} is missing ({_reason(error)}).") from error
    if size == 0:
        raise DataError(f"The {what} {path} is an empty file. Get this file again.")


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def _expected(layout: str) -> str:
    return f" Expected layout:\n{layout}" if layout else ""
