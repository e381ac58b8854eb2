"""A run folder: where everything lies, its status, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from udabench.engine.files import explain_full_disk, read_json, write_json
from udabench.errors import UserError
from udabench.world import leads

Status = Literal["created", "running", "stopped", "failed", "finished", "imported"]


class RunFolder:
    """Paths of a run.

    ``run.json`` holds what the conductor stored (the resolved configuration) beside ``status``, ``iteration`` (of the
    last checkpoint) and ``sessions`` (how often the training was started).
    """

    _held: ClassVar[set[Path]] = set()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_json = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.stages = path / "stages"
        self.artefacts = path / "artefacts"
        self.initial = path / "initial"
        self.record = path / "record.json"
        self.matrices = path / "record.matrices"
        self.log = path / "log.txt"
        self.failure = path / "failure"

    def read_run(self) -> dict[str, Any]:
        """``run.json``; empty while there is none. Raises UserError when it is damaged."""
        return read_json(self.run_json) if self.run_json.exists() else {}

    def update_run(self, **values: Any) -> None:
        """Change some keys of ``run.json``, atomically. Rank 0 does it for all."""
        if leads():
            write_json(self.run_json, {**self.read_run(), **values})

    @property
    def status(self) -> Status:
        status: Status = self.read_run().get("status", "created")
        return status

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out; may be nested. The system lifts it when the process dies, however it dies. Rank 0
        holds it for all.

        Raises:
            UserError: another process holds it.
        """
        key = self.path.resolve()
        if key in self._held or not leads():
            yield
            return
        with explain_full_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take(handle)
            self._held.add(key)
            yield
        finally:
            self._held.discard(key)
            os.close(handle)

    def owner(self) -> str | None:
        """The number of the other process that holds the lock, ``unknown`` where it is not told; None: none does."""
        try:
            handle = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return _written(handle)
        finally:
            os.close(handle)
        return None

    def _take(self, handle: int) -> None:
        try:
            # A record lock, not flock: loader processes that outlive a killed parent must not inherit it.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _written(handle)
            raise UserError(
                f"The run folder {self.path} is in use by another process (pid {owner}). "
                "Wait until it ends, stop it, or choose another folder with --runs."
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())


def _written(handle: int) -> str:
    """What the owner of a lock has written into it."""
    return os.read(handle, 100).decode(errors="replace").strip() or "unknown"
