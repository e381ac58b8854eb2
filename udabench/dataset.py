"""The data set contract: where it lies, its splits, its label ids, and one sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from udabench.errors import DataError
from udabench.labels import IGNORE, LabelSpace
from udabench.size import Size

Pixels = npt.NDArray[np.uint8]


class Dataset(ABC):
    """One split of a data set on disk (or made up on the fly), read in its native layout.

    A subclass states the class attributes and implements :meth:`list_names`, :meth:`read_image` and
    :meth:`read_ids`. Samples are known by name: the stem under which predictions are written, unique in the split.
    """

    label_space: ClassVar[LabelSpace]
    id_map: ClassVar[Mapping[int, int]]
    """Every label id that a file may hold -> the id in ``label_space`` (255: ignore). Another id is an error."""
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    train_size: ClassVar[Size]
    """The size to which papers resize this data set's images for training and input of evaluation."""
    needs_root: ClassVar[bool] = True
    """False for data that is generated: no folder is looked for."""
    layout: ClassVar[str] = ""
    """The expected folder layout, as printed to a user whose folder is missing."""
    obtain: ClassVar[str] = ""
    """How to get the data, likewise."""
    present: ClassVar[tuple[int, ...] | None] = None
    """Ids of ``label_space`` that occur in this data set, where they are fewer than all (SYNTHIA: 16 of 19)."""
    folder: ClassVar[str | None] = None
    """Name of the folder under ``UDABENCH_DATA``, where it is not the data set's own name."""
    usual_counts: ClassVar[Mapping[str, int]] = {}
    """Split -> number of samples of the complete download, so that the doctor can tell what is missing."""
    default_preset: ClassVar[str | None] = None
    """The preset taken when a run on this source names none (small data sets: ``quick``)."""

    def __init__(self, root: Path | None, split: str) -> None:
        if split not in self.splits:
            raise DataError(f"{type(self).__name__} has no split '{split}'. It has: {', '.join(self.splits)}.")
        self.root = root
        self.split = split

    @abstractmethod
    def list_names(self) -> Sequence[str]:
        """Names of all samples of the split, in a fixed order. Raises DataError when the folder is not as expected."""

    @abstractmethod
    def read_image(self, name: str) -> Pixels:
        """H W 3, RGB, uint8. Raises DataError that names the file."""

    @abstractmethod
    def read_ids(self, name: str) -> npt.NDArray[np.integer]:
        """H W, the label ids as the files hold them. Raises DataError that names the file."""

    def has_label(self, name: str) -> bool:
        """Whether there is a label; does not open it. File-based data sets ask whether the file exists."""
        return True

    def label_path(self, name: str) -> str:
        """What to call this sample's label in a message; file-based data sets return the file."""
        return f"label of '{name}'"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, listed once."""
        return tuple(self.list_names())

    def __len__(self) -> int:
        return len(self.names)

    def read_label(self, name: str) -> Pixels:
        """H W, uint8, ids of ``label_space``, 255 where unknown. Raises DataError on an id outside ``id_map``."""
        ids = self.read_ids(name)
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise DataError(
                f"{self.label_path(name)} has the shape {ids.shape} and type {ids.dtype}; a label is H W and holds "
                "whole numbers. Is it a coloured picture of the label?"
            )
        low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
        if low < self._lowest or high >= len(self._lookup) + self._lowest:
            raise DataError(self._unexpected(name, ids))
        label = self._lookup[ids.astype(np.int64) - self._lowest]
        if (label == _UNEXPECTED).any():
            raise DataError(self._unexpected(name, ids))
        return label.astype(np.uint8)

    @cached_property
    def _lowest(self) -> int:
        return min(0, *self.id_map)

    @cached_property
    def _lookup(self) -> npt.NDArray[np.int16]:
        table = np.full(max(self.id_map) + 1 - self._lowest, _UNEXPECTED, np.int16)
        for native, train in self.id_map.items():
            table[native - self._lowest] = train
        return table

    def _unexpected(self, name: str, ids: npt.NDArray[np.integer]) -> str:
        strange = sorted(set(np.unique(ids).tolist()) - set(self.id_map))
        return (
            f"{self.label_path(name)} holds the label id(s) {', '.join(map(str, strange))}; "
            f"{type(self).__name__} knows {min(self.id_map)} to {max(self.id_map)}. Is it another data set's file?"
        )

    def digest(self) -> str:
        """SHA-256 of the list of names: a filtered list is another experiment."""
        return sha256("\n".join(self.names).encode()).hexdigest()

    def identity(self) -> str:
        """64 hex digits of all that the pixels depend on: class, root, split, names and the plain public attributes
        (options). Prepared data and statistics are kept under it."""
        plain = sorted(
            f"{key}={value!r}"
            for key, value in vars(self).items()
            if not key.startswith("_")
            and isinstance(value, (str, int, float, bool, Path, tuple))
            and not isinstance(getattr(type(self), key, None), cached_property)
        )
        parts = [f"{type(self).__module__}.{type(self).__qualname__}", *plain, self.digest()]
        return sha256("\n".join(parts).encode()).hexdigest()


_UNEXPECTED = -1000


class Unlabelled:
    """A view of a data set without labels: the only form in which a method's side sees the target's training split."""

    def __init__(self, dataset: Dataset) -> None:
        self.names = dataset.names
        self.read_image = dataset.read_image

    def __len__(self) -> int:
        return len(self.names)


__all__ = ["IGNORE", "Dataset", "Pixels", "Unlabelled"]
