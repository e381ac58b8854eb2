"""Per-image confusion matrices of a run, in one compact binary file."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from udabench.engine.files import replacing
from udabench.errors import RecordError
from udabench.evaluate.metrics import Matrix

_NAMES = "names"
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
"""What numpy raises on a file that is cut short, altered or something else."""


@dataclass(frozen=True)
class Matrices:
    """One confusion matrix for each image and score.

    Attributes:
        names: images, in the evaluation set's order.
        by_score: ``<predictor>.<checkpoint>`` -> n C C int64, rows truth, columns prediction.
    """

    names: tuple[str, ...]
    by_score: Mapping[str, Matrix]

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever compressed it."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for key in sorted(self.by_score):
            matrix = np.ascontiguousarray(self.by_score[key], dtype="<i8")
            digest.update(f"{key}{matrix.shape}".encode())
            digest.update(matrix.tobytes())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Atomically. Raises DiskFull."""
        arrays: dict[str, Any] = {key: _narrow(matrix) for key, matrix in sorted(self.by_score.items())}
        arrays[_NAMES] = np.array(self.names, dtype=np.str_)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def read(cls, path: Path) -> Matrices:
        """Raises RecordError when the file is missing or damaged. Nothing is unpickled."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            names = tuple(str(name) for name in arrays.pop(_NAMES))
        except FileNotFoundError as error:
            raise RecordError(f"{path} is missing: the confusion matrices belong beside their record.") from error
        except _BROKEN as error:
            raise RecordError(f"{path} is damaged ({error}). Restore it, or evaluate the run again.") from error
        for key, array in arrays.items():
            if array.ndim != 3 or array.shape[0] != len(names) or array.shape[1] != array.shape[2]:
                raise RecordError(f"{path} is damaged: '{key}' has shape {array.shape} for {len(names)} images.")
        return cls(names, {key: array.astype(np.int64) for key, array in arrays.items()})


def _narrow(matrix: Matrix) -> npt.NDArray[np.unsignedinteger]:
    """The smallest unsigned type that holds every count."""
    return matrix.astype(np.min_scalar_type(int(matrix.max(initial=0))))
