"""The two formats of a prepared store: raw arrays in two files, or a JPEG and a PNG a sample.

A shelf stores sample ``i``'s image and label and returns their checksums; it knows neither names nor completeness.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from udabench.data.files import read_ids, read_rgb
from udabench.dataset import Pixels
from udabench.size import Size

Format = Literal["raw", "jpeg"]
Checks = tuple[int, int]
"""CRC-32 of an image's and of a label's stored bytes; 0 where there is no label."""


def checksum(data: bytes | Pixels) -> int:
    """CRC-32, at memory speed."""
    return int(imagecodecs.deflate_crc32(data))  # type: ignore[arg-type]  # any contiguous buffer will do


class Shelf(ABC):
    """Samples in a folder, by index."""

    lossy: ClassVar[bool] = False

    def __init__(self, folder: Path, count: int, size: Size, labelled: bool) -> None:
        self.folder = folder
        self.count = count
        self.size = size
        self.labelled = labelled

    @staticmethod
    @abstractmethod
    def estimate(count: int, size: Size, labelled: bool) -> int:
        """Bytes on disk."""

    @abstractmethod
    def allocate(self) -> None:
        """Make room. Raises OSError when there is none. Does nothing to what is already stored."""

    @abstractmethod
    def put(self, index: int, image: Pixels, label: Pixels | None) -> Checks:
        """Store one sample; thread-safe."""

    @abstractmethod
    def flush(self) -> None:
        """Wait until everything is on the disk."""

    @abstractmethod
    def image(self, index: int) -> tuple[Pixels, int]:
        """H W 3 and the checksum of its bytes."""

    @abstractmethod
    def label(self, index: int) -> tuple[Pixels, int]:
        """H W and the checksum of its bytes."""

    def complete(self) -> bool:
        """Whether the files are there at their full length; says nothing about what they hold."""
        return self.folder.is_dir()

    def checks(self, index: int) -> Checks:
        """As :meth:`put` returned them, from what is stored now."""
        return self.image(index)[1], self.label(index)[1] if self.labelled else 0

    def __getstate__(self) -> dict[str, object]:
        """Without open maps: pickling one would copy the whole file."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_map")}


class RawShelf(Shelf):
    """``images.raw`` (count H W 3) and ``labels.raw`` (count H W), uint8, memory-mapped for reading."""

    @staticmethod
    def estimate(count: int, size: Size, labelled: bool) -> int:
        return count * size.height * size.width * (4 if labelled else 3)

    @property
    def _files(self) -> list[tuple[str, tuple[int, ...]]]:
        shape = (self.count, *self.size)
        return [("images.raw", (*shape, 3))] + ([("labels.raw", shape)] if self.labelled else [])

    def allocate(self) -> None:
        for name, shape in self._files:
            with (self.folder / name).open("ab") as file:
                reserve(file.fileno(), int(np.prod(shape)))

    def put(self, index: int, image: Pixels, label: Pixels | None) -> Checks:
        self._write("images.raw", index, image)
        if label is None:
            return checksum(np.ascontiguousarray(image)), 0
        self._write("labels.raw", index, label)
        return checksum(np.ascontiguousarray(image)), checksum(np.ascontiguousarray(label))

    def _write(self, name: str, index: int, pixels: Pixels) -> None:
        # Not through a memory map: where the disk is full, that ends the process instead of raising.
        with (self.folder / name).open("r+b", buffering=0) as file:
            file.seek(index * pixels.nbytes)
            data = np.ascontiguousarray(pixels).data.cast("B")
            while data:
                data = data[file.write(data) :]

    def flush(self) -> None:
        sync(self.folder / name for name, _ in self._files)

    def complete(self) -> bool:
        paths = [(self.folder / name, int(np.prod(shape))) for name, shape in self._files]
        return all(path.is_file() and path.stat().st_size == length for path, length in paths)

    def image(self, index: int) -> tuple[Pixels, int]:
        return self._map_images[index], checksum(self._map_images[index])

    def label(self, index: int) -> tuple[Pixels, int]:
        return self._map_labels[index], checksum(self._map_labels[index])

    @cached_property
    def _map_images(self) -> npt.NDArray[np.uint8]:
        return self._map(0)

    @cached_property
    def _map_labels(self) -> npt.NDArray[np.uint8]:
        return self._map(1)

    def _map(self, which: int) -> npt.NDArray[np.uint8]:
        name, shape = self._files[which]
        mapped = np.memmap(self.folder / name, np.uint8, "r", shape=shape)
        return np.asarray(mapped)


class JpegShelf(Shelf):
    """``images/<index>.jpg`` and ``labels/<index>.png``: some 15 times smaller, and the images lose a little."""

    lossy = True
    QUALITY = 95

    @staticmethod
    def estimate(count: int, size: Size, labelled: bool) -> int:
        """Street scenes take about 2.5 bits a pixel, their labels 0.3; rounded up."""
        return int(count * size.height * size.width * (0.4 if labelled else 0.35))

    def allocate(self) -> None:
        for name in ("images", "labels") if self.labelled else ("images",):
            (self.folder / name).mkdir(exist_ok=True)

    def put(self, index: int, image: Pixels, label: Pixels | None) -> Checks:
        check = self._write(self._image_path(index), image, format="JPEG", quality=self.QUALITY, subsampling=0)
        if label is None:
            return check, 0
        return check, self._write(self._label_path(index), label, format="PNG", compress_level=4)

    def _write(self, path: Path, pixels: Pixels, **options: object) -> int:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, **options)  # type: ignore[arg-type]
        path.write_bytes(buffer.getbuffer())
        return checksum(buffer.getvalue())

    def flush(self) -> None:
        # One call: a call a file would take minutes for a large set.
        getattr(os, "sync", lambda: None)()

    def image(self, index: int) -> tuple[Pixels, int]:
        path = self._image_path(index)
        return read_rgb(path), checksum(path.read_bytes())

    def label(self, index: int) -> tuple[Pixels, int]:
        path = self._label_path(index)
        return read_ids(path), checksum(path.read_bytes())

    def _image_path(self, index: int) -> Path:
        return self.folder / "images" / f"{index:06d}.jpg"

    def _label_path(self, index: int) -> Path:
        return self.folder / "labels" / f"{index:06d}.png"


SHELVES: dict[Format, type[Shelf]] = {"raw": RawShelf, "jpeg": JpegShelf}


def reserve(descriptor: int, length: int) -> None:
    """Give an open file this length, and its blocks where the system can. Raises OSError when there is no space."""
    try:
        os.posix_fallocate(descriptor, 0, length)
    except AttributeError:  # not on macOS and Windows: a full disk shows at writing
        os.truncate(descriptor, length)


def sync(paths: Iterable[Path]) -> None:
    """Wait until these files and folders are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
