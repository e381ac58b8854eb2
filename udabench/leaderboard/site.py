"""The folder of leaderboards: records in ``results/<task>/``, a generated page ``<task>.md`` each."""

from __future__ import annotations

from pathlib import Path

from udabench.engine.files import write_text
from udabench.errors import RecordError
from udabench.leaderboard.page import MARKER, render_page
from udabench.results import Record, read_matrices, recompute, write_record

RESULTS = "results"


def build(folder: Path) -> list[Path]:
    """Write every page, delete those whose records are gone. Returns the pages that stand.

    Raises:
        RecordError: a record or its matrices are damaged, or two are the same experiment.
    """
    pages = _render(folder)
    for path, text in pages.items():
        write_text(path, text)
    for path in _generated(folder) - set(pages):
        path.unlink()
    return sorted(pages)


def check(folder: Path) -> list[Path]:
    """Pages that are not what their records give: altered, missing, or left over. Raises RecordError as build does."""
    pages = _render(folder)
    stale = {path for path, text in pages.items() if not path.is_file() or path.read_bytes() != text.encode()}
    return sorted(stale | (_generated(folder) - set(pages)))


def add(run: Path, folder: Path) -> Path:
    """Copy the record of a run folder (or a record file) in, with its matrices. Returns where it lies now.

    Raises:
        RecordError: it is damaged, its numbers are not those of its matrices, or another result of the same
            experiment and seed is there already.
    """
    recompute(run)
    record, matrices = read_matrices(run)
    place = folder / RESULTS / record.task.name
    for path, other in _read_task(place):
        same = (other.config_hash, other.seed, other.protocol_hash)
        if same == (record.config_hash, record.seed, record.protocol_hash):
            if other.outcome_digest == record.outcome_digest:
                return path
            raise RecordError(
                f"{path} already holds another result of this experiment (configuration {record.config_hash}, seed "
                f"{record.seed}). Remove it and its .matrices first if the new one shall replace it."
            )
    return write_record(place, record, matrices, f"{record.run}.json")


def read_results(folder: Path) -> dict[str, list[Record]]:
    """Task -> its stored records. Raises RecordError when one is damaged or there is no folder."""
    if not folder.is_dir():
        raise RecordError(f"There is no folder {folder}. Name the folder of leaderboards with --folder.")
    tasks = sorted(path for path in (folder / RESULTS).glob("*") if path.is_dir())
    return {task.name: [record for _, record in _read_task(task)] for task in tasks}


def _render(folder: Path) -> dict[Path, str]:
    """Page -> text."""
    return {folder / f"{task}.md": render_page(records) for task, records in read_results(folder).items() if records}


def _read_task(place: Path) -> list[tuple[Path, Record]]:
    """The records of a task's folder, checked against their matrices."""
    found = [(path, read_matrices(path)[0]) for path in sorted(place.glob("*.json"))]
    for path, record in found:
        if record.task.name != place.name:
            raise RecordError(f"{path} belongs to task {record.task.name}, not {place.name}. Move it there.")
    return found


def _generated(folder: Path) -> set[Path]:
    """Pages that carry the mark of a generated one."""
    return {path for path in folder.glob("*.md") if path.read_text(encoding="utf-8").startswith(MARKER)}
