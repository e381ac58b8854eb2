"""Writing, reading and recomputing records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from udabench.engine.files import write_text
from udabench.errors import RecordError
from udabench.evaluate.metrics import Matrix, iou, mean_ious, pixel_accuracy
from udabench.results.matrices import Matrices
from udabench.results.record import SCHEMA_VERSION, Record, Score

RECORD = "record.json"
TOLERANCE = 1e-12


def record_path(place: Path) -> Path:
    """The record of a run folder, or the file itself."""
    return place / RECORD if place.is_dir() else place


def matrices_path(record: Path) -> Path:
    """Where the matrices of a record file lie."""
    return record.with_suffix(".matrices")


def write_record(folder: Path, record: Record, matrices: Matrices, name: str = RECORD) -> Path:
    """Write both files, each atomically, the record last. Returns the record's path.

    Raises:
        DiskFull: there is no space; an older record stays as it is.
        RecordError: the matrices are not the record's.
    """
    path = folder / name
    _check_digest(record, matrices, path)
    matrices.write(matrices_path(path))
    write_text(path, to_json(record))
    return path


def to_json(record: Record) -> str:
    """The file's text."""
    return record.model_dump_json(indent=2) + "\n"


def read_record(place: Path) -> Record:
    """The record of a run folder, or in a file.

    Raises:
        RecordError: it is missing, damaged, or written under a newer schema.
    """
    path = record_path(place)
    values = _read_json(path)
    version = values.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecordError(f"{path} is no record: it states no schema_version.")
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{path} was written under record schema {version}; this udabench reads up to {SCHEMA_VERSION}. "
            "Update udabench to read it."
        )
    try:
        return Record.model_validate_json(json.dumps(values))
    except ValidationError as error:
        problems = [f"  {'.'.join(map(str, e['loc'])) or 'record'}: {e['msg']}" for e in error.errors()[:5]]
        raise RecordError(f"{path} is damaged:\n" + "\n".join(problems) + "\nRestore it from its run.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"There is no record {path}. It is written when a run has finished.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"{path} is damaged ({error}). Restore it from its run.") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path} is no record: it holds no JSON object.")
    return values


def read_matrices(place: Path) -> tuple[Record, Matrices]:
    """A record and its matrices, checked against the digest that the record holds. Raises RecordError."""
    path = record_path(place)
    record = read_record(path)
    matrices = Matrices.read(matrices_path(path))
    _check_digest(record, matrices, path)
    return record, matrices


def _check_digest(record: Record, matrices: Matrices, path: Path) -> None:
    if matrices.digest != record.matrices:
        raise RecordError(
            f"{matrices_path(path)} does not have the digest that its record states: one of the two was altered. "
            "Restore both from their run."
        )
    if set(matrices.by_score) != {score.key for score in record.evaluations}:
        raise RecordError(f"{matrices_path(path)} does not hold the scores that its record lists.")


@dataclass(frozen=True)
class Recomputed:
    """Metrics from stored matrices alone: ``matrix`` C C over the set, IoU by class, means, share of right pixels."""

    matrix: Matrix
    iou: dict[str, float]
    means: dict[str, float]
    pixel_accuracy: float


def recompute(place: Path) -> dict[str, Recomputed]:
    """Every metric of every score (``<predictor>.<checkpoint>``) from the stored matrices, without the model.

    Raises:
        RecordError: a file is damaged, or the record's numbers are not those of its matrices.
    """
    record, matrices = read_matrices(place)
    found = {}
    for score in record.evaluations:
        result = _metrics(record, matrices.by_score[score.key])
        _check_equal(score, result, record_path(place))
        found[score.key] = result
    return found


def _metrics(record: Record, per_image: Matrix) -> Recomputed:
    matrix = per_image.sum(0)
    if len(matrix) != len(record.task.classes):
        raise RecordError(f"The matrices of {record.run} have {len(matrix)} classes, not {len(record.task.classes)}.")
    values = iou(matrix)
    named = dict(zip(record.task.classes, values.tolist(), strict=True))
    return Recomputed(matrix, named, mean_ious(values, record.task.evaluated), pixel_accuracy(matrix))


def _check_equal(score: Score, result: Recomputed, path: Path) -> None:
    pairs = [
        *((score.iou[k], v) for k, v in result.iou.items()),
        *((score.means[k], v) for k, v in result.means.items()),
    ]
    stored, computed = np.array(pairs).T
    if not np.allclose(stored, computed, rtol=0, atol=TOLERANCE, equal_nan=True):
        raise RecordError(f"{path}: the numbers of {score.key} are not those of its matrices. Restore it from its run.")
