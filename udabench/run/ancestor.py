"""The run that another one begins from (``--init-from``), read from its folder. Nothing is built here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from udabench.config import RunConfig
from udabench.engine.checkpoint import Checkpoint, Checkpoints
from udabench.engine.folder import RunFolder
from udabench.errors import CheckpointError, UsageError
from udabench.resolve import Resolved
from udabench.results.record import Record
from udabench.results.store import read_record

KEY = "ancestor"
"""The key of the configuration that says which run is the ancestor."""


@dataclass(frozen=True)
class Ancestor:
    """A finished run, or imported weights.

    Attributes:
        run: its ``run.json``.
        record: None: imported weights, which nobody has evaluated as a run.
        last: its last checkpoint.
    """

    folder: RunFolder
    run: Mapping[str, Any]
    record: Record | None
    last: Checkpoint

    @cached_property
    def digest(self) -> str:
        """Of what it ended with: its outcome and its weights, wherever its folder lies."""
        outcome = self.record.matrices if self.record is not None else "imported"
        return sha256(f"{outcome} {self.last.weights}".encode()).hexdigest()

    def known_as(self, seed: int) -> str:
        """What the configuration's hash holds of it, for a run of this seed.

        A run of the same seed stands for its row: what begins from each seed of a row is a row too. Any other run, and
        imported weights, are what they ended with.
        """
        if self.record is not None and self.record.seed == seed:
            return row_known_as(self.record.config_hash)
        return self.digest

    @property
    def stages(self) -> list[dict[str, Any]]:
        """What its stages declared, those that it finished: all. Raises UsageError where that was not noted."""
        stages: list[dict[str, Any]] | None = self.run.get("stages")
        if stages is None:
            raise UsageError(
                f"{self.folder.path} does not say what its stages were (imported weights, or a run of an older "
                "version): its own method cannot go on from it. Train it again, or begin another method from it."
            )
        return stages


def row_known_as(config_hash: str) -> str:
    """What the configuration's hash holds of an ancestor of the same seed, which need not have run yet."""
    return f"row {config_hash}"


def read_ancestor(path: Path) -> Ancestor:
    """Open the folder of a run that ended.

    Raises:
        UsageError: it is no run folder, or the run has not ended.
        CheckpointError: its last checkpoint is missing or damaged.
    """
    folder = RunFolder(path)
    run = folder.read_run()
    if "config" not in run:
        raise UsageError(f"--init-from {path}: this is no run folder; it has no run.json with a configuration.")
    finished = folder.record.is_file()
    if not finished and run.get("status") != "imported":
        raise UsageError(
            f"--init-from {path}: this run has not ended (it is {run.get('status')}, at iteration "
            f"{run.get('iteration', 0)} of {run['config'].get('iterations')}). End it first: udabench resume {path}"
        )
    last = Checkpoints(folder.checkpoints).last()
    if last is None:
        raise CheckpointError(f"--init-from {path}: this run has no checkpoint any more. Train it again.")
    return Ancestor(folder, run, read_record(path) if finished else None, last)


def with_ancestor(resolved: Resolved, known: str | None = None) -> Resolved:
    """The configuration with the run that it begins from, which makes it another experiment.

    Args:
        known: what the ancestor is known as; None: its folder says it.

    Raises:
        UsageError: that is stated by hand, or the folder holds no finished run.
    """
    config: RunConfig = resolved.config
    if config.ancestor is not None:
        raise UsageError(f"'{KEY}' follows from init_from and cannot be set. Leave it out.")
    if config.init_from is None:
        return resolved
    known = known or read_ancestor(config.init_from).known_as(config.seed)
    return Resolved(config.model_copy(update={KEY: known}), {**resolved.origins, KEY: "init_from"})


def without_ancestor(config: RunConfig) -> str | None:
    """A warning where the method wants a trained network and the run begins from none; or None."""
    if config.init_from is not None or not config.settings.begins_trained:
        return None
    return (
        f"{config.method} with these settings begins with what its network says of the target, but nothing has trained "
        "that network's head: its labels are noise. Name a run to begin from: --init-from RUN."
    )
