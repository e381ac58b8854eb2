"""Prepared data sets: decoded and resized once, then read from a memory map. Nothing needs one; it is only faster.

A store is a folder ``<name>-<split>-<size>-<format>-<identity>`` with the pixels, per-image class counts, checksums and
``store.json``, which is written last. It grows under another name and is renamed when it is whole; a killed
preparation goes on where it was. Every sample is checked against its checksum when it is read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from udabench.data.files import check_same_size
from udabench.data.parallel import Progress, parallel
from udabench.data.resize import resize_image, resize_label
from udabench.data.sampler import Counts
from udabench.data.shelf import SHELVES, Format, Shelf, reserve, sync
from udabench.data.statistics import check_counts, count_classes, store_folder
from udabench.dataset import Dataset, Pixels
from udabench.errors import DataError, UsageError
from udabench.size import Size

VERSION = 1
MANIFEST = "store.json"
JOURNAL = "journal.raw"
"""int64 rows, one a sample: 1 when done, checksum of image and of label, native pixels of each class."""
FIXED = 3
"""Columns of the journal before the classes."""
PARTIAL = ".partial"
Confirm = Callable[[int], bool]
"""Told the bytes that a store will take; whether to go on."""


class PreparedDataset(Dataset):
    """A data set read from its store: images and labels at the prepared size, else like the one it was made from.

    Attributes:
        raw: the data set itself.
        path: the store's folder.
        counts: images x ids of the label space, at native resolution.
        lossy: whether images differ from the raw ones (JPEG).
    """

    def __init__(self, raw: Dataset, path: Path) -> None:
        self.raw = raw
        self.path = path
        self.root = raw.root
        self.split = raw.split
        manifest = _read_manifest(path)
        self.size = Size.parse(manifest["size"])
        self.labelled = bool(manifest["labelled"])
        shelf = SHELVES[manifest["format"]]
        self.lossy = shelf.lossy
        self._shelf = shelf(path, len(raw), self.size, self.labelled)
        if not self._shelf.complete():
            raise _damaged(path, "its files are missing or cut short")
        journal = _read_journal(path, manifest)
        self._checks, self.counts = journal[:, 1:FIXED], journal[:, FIXED:]
        self._index = {name: i for i, name in enumerate(raw.names)}
        # The contract's class attributes, as the data set that was prepared has them.
        self.__dict__.update(
            label_space=raw.label_space,
            id_map=raw.id_map,
            splits=raw.splits,
            train_size=raw.train_size,
            present=raw.present,
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        return self.raw.names

    def list_names(self) -> tuple[str, ...]:
        return self.raw.names

    def identity(self) -> str:
        return self.raw.identity()

    def read_image(self, name: str) -> Pixels:
        """H W 3 at the prepared size; read-only. Raises DataError when the store is damaged."""
        index = self._index[name]
        image, check = self._shelf.image(index)
        self._verify(check, index, 0, name)
        return image

    def read_label(self, name: str) -> Pixels:
        """H W at the prepared size; read-only. Raises DataError when the store is damaged or holds no labels."""
        if not self.labelled:
            return resize_label(self.raw.read_label(name), self.size)
        index = self._index[name]
        label, check = self._shelf.label(index)
        self._verify(check, index, 1, name)
        return label

    def read_ids(self, name: str) -> npt.NDArray[np.integer]:
        """The original ids at native size: the store holds mapped ones."""
        return self.raw.read_ids(name)

    def has_label(self, name: str) -> bool:
        return self.labelled or self.raw.has_label(name)

    def label_path(self, name: str) -> str:
        return self.raw.label_path(name)

    def _verify(self, check: int, index: int, column: int, name: str) -> None:
        if check != self._checks[index, column]:
            raise _damaged(self.path, f"the {'label' if column else 'image'} of '{name}' has another checksum")


def estimate_bytes(dataset: Dataset, size: Size, format: Format = "raw") -> int:
    """What a store will take on disk."""
    return SHELVES[format].estimate(len(dataset), size, _labelled(dataset))


def store_path(dataset: Dataset, size: Size, folder: Path | None = None, format: Format = "raw") -> Path:
    """The folder of a store, whether it exists or not."""
    name = f"{type(dataset).__name__.lower()}-{dataset.split}-{size}-{format}-{dataset.identity()[:12]}"
    return store_folder(folder) / name


def find_prepared(dataset: Dataset, size: Size, folder: Path | None = None) -> PreparedDataset | None:
    """The valid store of a data set at this size, or None. A lossy one counts only in a folder named on purpose.

    Raises:
        DataError: there is one, but it is damaged.
    """
    formats: tuple[Format, ...] = ("raw",) if folder is None else ("raw", "jpeg")
    for format in formats:
        path = store_path(dataset, size, folder, format)
        if path.exists():
            return PreparedDataset(dataset, path)
    return None


def prefer_prepared(dataset: Dataset, size: Size, folder: Path | None = None) -> Dataset:
    """The data set's valid store if there is one, else the data set itself."""
    return find_prepared(dataset, size, folder) or dataset


def prepare(
    dataset: Dataset,
    size: Size,
    folder: Path | None = None,
    format: Format = "raw",
    limit: int | None = None,
    confirm: Confirm | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PreparedDataset:
    """Decode, check and resize every sample into a store; goes on where a killed preparation ended.

    Args:
        folder: of all stores; None: as :func:`udabench.data.statistics.store_folder` says.
        limit: bytes above which ``confirm`` is asked; without ``confirm`` it is an error.

    Returns:
        The data set, read from its store. A store that is already there and whole is left as it is.

    Raises:
        DataError: a file cannot be read (named), sizes differ, no pixel has a class, no space.
        UsageError: above the limit and not confirmed; another process prepares the same.
    """
    path = store_path(dataset, size, folder, format)
    if path.exists():
        return PreparedDataset(dataset, path)
    need = estimate_bytes(dataset, size, format)
    if limit is not None and need > limit and not (confirm is not None and confirm(need)):
        raise UsageError(
            f"The store takes {need / 1e9:.1f} GB, above the limit of {limit / 1e9:.1f} GB. Raise --limit, or take "
            "--format jpeg."
        )
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(partial):
            _check_space(partial, need)
            shelf = SHELVES[format](partial, len(dataset), size, _labelled(dataset))
            _fill(dataset, shelf, threads, progress)
            _finish(dataset, shelf, format)
            partial.rename(path)
        sync([path.parent])
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"The store {path} cannot be written: {reason}. What is done is kept.") from error
    return PreparedDataset(dataset, path)


def _labelled(dataset: Dataset) -> bool:
    return dataset.has_label(dataset.names[0])


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Alone in this folder. The system lets go of the lock when the process ends, however it ends."""
    import fcntl  # not on Windows, where nothing else of the project needs it

    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(f"Another process is preparing {partial}. Wait for it.") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _check_space(partial: Path, need: int) -> None:
    have = sum(file.stat().st_blocks * 512 for file in partial.rglob("*"))
    free = shutil.disk_usage(partial).free
    if need - have > free:
        raise DataError(
            f"The store needs {need / 1e9:.1f} GB, but {partial.parent} has only {free / 1e9:.1f} GB free. Make room, "
            "name another folder (data.store), or take --format jpeg."
        )


def _fill(dataset: Dataset, shelf: Shelf, threads: int | None, progress: Progress | None) -> None:
    """Store every sample that the journal does not vouch for."""
    shelf.allocate()
    classes = len(dataset.label_space)
    shape = (len(dataset), FIXED + classes)
    path = shelf.folder / JOURNAL
    with path.open("ab") as file:
        reserve(file.fileno(), int(np.prod(shape)) * 8)
    done = np.fromfile(path, np.int64).reshape(shape)

    def one(index: int) -> None:
        if done[index, 0] and shelf.checks(index) == tuple(done[index, 1:FIXED]):
            return
        row = np.array([1, *_store_sample(dataset, shelf, index)], np.int64)
        with path.open("r+b", buffering=0) as file:
            file.seek(index * row.nbytes)
            file.write(row.tobytes())

    for _ in parallel(one, range(len(dataset)), threads, progress):
        pass


def _store_sample(dataset: Dataset, shelf: Shelf, index: int) -> list[int]:
    """Read, check, resize and put one sample; its checksums and class counts."""
    name, classes = dataset.names[index], len(dataset.label_space)
    image = dataset.read_image(name)
    if not shelf.labelled:
        return [*shelf.put(index, resize_image(image, shelf.size), None), *[0] * classes]
    label = dataset.read_label(name)
    check_same_size(image, label, name, dataset.label_path(name))
    checks = shelf.put(index, resize_image(image, shelf.size), resize_label(label, shelf.size))
    return [*checks, *count_classes(label, classes).tolist()]


def _finish(dataset: Dataset, shelf: Shelf, format: Format) -> None:
    """Everything on the disk, then the manifest."""
    journal = shelf.folder / JOURNAL
    if shelf.labelled:
        counts = np.fromfile(journal, np.int64).reshape(len(dataset), -1)[:, FIXED:]
        check_counts(counts, dataset)
    shelf.flush()
    sync([journal])
    manifest = {
        "version": VERSION,
        "dataset": type(dataset).__name__,
        "split": dataset.split,
        "size": str(shelf.size),
        "format": format,
        "labelled": shelf.labelled,
        "count": len(dataset),
        "classes": len(dataset.label_space),
        "identity": dataset.identity(),
        "journal": sha256(journal.read_bytes()).hexdigest(),
    }
    path = shelf.folder / MANIFEST
    path.write_text(json.dumps({**manifest, "digest": _digest(manifest)}, indent=1), encoding="utf-8")
    sync([path, shelf.folder])


def _digest(manifest: Mapping[str, Any]) -> str:
    return sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        digest = manifest.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, f"{MANIFEST} cannot be read") from error
    if digest != _digest(manifest):
        raise _damaged(path, f"{MANIFEST} does not match its digest")
    if manifest["version"] != VERSION:
        raise _damaged(path, f"it has version {manifest['version']}, this is version {VERSION}")
    return manifest


def _read_journal(path: Path, manifest: Mapping[str, Any]) -> Counts:
    try:
        data = (path / JOURNAL).read_bytes()
    except OSError as error:
        raise _damaged(path, f"{JOURNAL} cannot be read") from error
    if sha256(data).hexdigest() != manifest["journal"]:
        raise _damaged(path, f"{JOURNAL} does not match its digest")
    return np.frombuffer(data, np.int64).reshape(manifest["count"], FIXED + manifest["classes"])


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"The prepared store {path} cannot be used: {what}. Delete that folder and run 'udabench data prepare' again; "
        "without it the original files are read."
    )
