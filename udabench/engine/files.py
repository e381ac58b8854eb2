"""Writing that survives a kill: a temporary name, fsync, rename. And what to say when a disk is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from udabench.errors import UserError
from udabench.world import leads, rank

_FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskFull(UserError):
    """No space left while something was written."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk (or the quota) is full; safetensors hides the number in its text."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, SafetensorError) and any(f"os error {code})" in str(error) for code in _FULL)


@contextmanager
def explain_full_disk(path: Path, kept: str = "") -> Iterator[None]:
    """Turns "no space left" into DiskFull. ``kept`` says what is safe."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        raise DiskFull(
            f"No space is left on the disk while writing {path}.{' ' + kept if kept else ''} "
            "Free some space, then go on with 'udabench resume RUN'."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to be written in the block; it then takes the place of ``path``. Nothing is left behind.

    Raises DiskFull.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: some writers choose the format by it. What a kill leaves here, the next attempt overwrites.
    # Several processes may write the same table.
    temporary = path.with_name(f".writing-{path.name}" if leads() else f".writing-{rank()}-{path.name}")
    try:
        with explain_full_disk(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path, kept: str = "") -> Iterator[Path]:
    """The same for a folder: all of its files or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with explain_full_disk(path, kept):
            temporary.mkdir()
            yield temporary
            for file in sorted(temporary.iterdir()):
                sync(file)
            sync(temporary)
            remove_folder(path)
            temporary.rename(path)
            sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def link_or_copy(file: Path, into: Path) -> None:
    """A second name of a file, or a copy where the disk has no such links. What is written here always takes a file's
    place and never changes it, so neither name sees what becomes of the other. Raises OSError without space."""
    try:
        os.link(file, into)
    except OSError as error:
        if is_full(error) or isinstance(error, FileNotFoundError):
            raise
        shutil.copyfile(file, into)


def copy_tree(folder: Path, into: Path) -> None:
    """All files of a folder by :func:`link_or_copy`; all of them or none. Raises DiskFull."""
    with replacing_folder(into) as temporary:
        for file in folder.rglob("*"):
            if file.is_file():
                there = temporary / file.relative_to(folder)
                there.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(file, there)


def size_of(folder: Path) -> tuple[int, int]:
    """Number and bytes of the files below a folder; nothing where there is none."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def remove_folder(path: Path) -> None:
    """Take a folder out of sight first, so that a kill leaves no half of it under its own name."""
    if path.exists():
        hidden = path.with_name(f".removing-{path.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        path.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left of :func:`replacing_folder` and :func:`remove_folder`."""
    for pattern in (".writing-*", ".removing-*"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Raises DiskFull."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Raises DiskFull."""
    write_text(path, json.dumps(values, indent=2, default=str, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError that names the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}. Restore the file, or start the run anew.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object. Restore the file, or start the run anew.")
    return values
