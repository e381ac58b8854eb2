"""Per-image class pixel counts at native resolution: what rare class sampling draws by. Counted once, then cached."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from udabench.data.parallel import Progress, parallel
from udabench.data.sampler import Counts
from udabench.dataset import Dataset, Pixels
from udabench.errors import DataError
from udabench.labels import IGNORE, LabelSpace


def store_folder(configured: Path | None = None) -> Path:
    """Where prepared data and statistics lie: as configured, else ``$UDABENCH_STORE``, else the user's cache folder."""
    named = configured or os.environ.get("UDABENCH_STORE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("udabench"))


def count_classes(label: Pixels, classes: int) -> npt.NDArray[np.int64]:
    """Pixels of each class id below ``classes`` in one label."""
    return np.bincount(label.ravel(), minlength=256)[:classes].astype(np.int64)


def class_counts(
    dataset: Dataset, folder: Path | None = None, threads: int | None = None, progress: Progress | None = None
) -> Counts:
    """Images x ids of the data set's own label space, over all its names.

    Args:
        folder: the cache lies in ``<folder>/statistics`` (see :func:`store_folder`).
        progress: told how many labels have been read; not called when the cache answers.

    Raises:
        DataError: a label cannot be read, or no label of the whole set holds a class.
    """
    shape = (len(dataset), len(dataset.label_space))
    path = store_folder(folder) / "statistics" / f"{dataset.identity()}.npy"
    cached = _read(path, shape)
    if cached is not None:
        return cached
    rows = parallel(lambda name: count_classes(dataset.read_label(name), shape[1]), dataset.names, threads, progress)
    counts = np.array(list(rows), np.int64).reshape(shape)
    check_counts(counts, dataset)
    _write(path, counts)
    return counts


def check_counts(counts: Counts, dataset: Dataset) -> None:
    """Raises DataError when no pixel of the whole set has a class: better now than in the middle of a training."""
    if counts.sum() == 0:
        raise DataError(
            f"None of the {len(counts)} labels of {type(dataset).__name__} '{dataset.split}' holds a pixel with a "
            f"class, {dataset.label_path(dataset.names[0])} for one. Check the files with 'udabench data doctor'."
        )


def to_classes(counts: Counts, space: LabelSpace, classes: LabelSpace) -> Counts:
    """Counts by the ids of ``space`` -> counts by the task's classes. Raises UsageError where they do not map."""
    lookup = classes.lookup(space)
    mapped = np.zeros((len(counts), len(classes)), np.int64)
    for native, c in enumerate(lookup[: len(space)]):
        if c != IGNORE:
            mapped[:, c] += counts[:, native]
    return mapped


def _read(path: Path, shape: tuple[int, int]) -> Counts | None:
    """The cached counts; None when there are none, or they are damaged (they are then counted again)."""
    try:
        counts: Counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return counts if counts.shape == shape and counts.dtype == np.int64 and counts.sum() > 0 else None


def _write(path: Path, counts: Counts) -> None:
    """Atomically. A cache that cannot be written costs time the next time, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, counts)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        return
