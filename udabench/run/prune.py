"""Frees the disk of what a finished run no longer needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from udabench.engine.checkpoint import Checkpoints
from udabench.engine.files import remove_folder, size_of, sweep
from udabench.engine.folder import RunFolder
from udabench.errors import CheckpointError, UsageError
from udabench.run.standing import standings


@dataclass(frozen=True)
class Prunable:
    """What could be removed of a run: folders, with the number of their files and their bytes."""

    folder: RunFolder
    parts: tuple[tuple[Path, int, int], ...]

    @property
    def freed(self) -> int:
        """Bytes that the disk gets back: a file with several names, in another run too, goes with the last of them."""
        stats = [file.stat() for path, _, _ in self.parts for file in path.rglob("*") if file.is_file()]
        names = Counter((stat.st_dev, stat.st_ino) for stat in stats)
        sizes = {(stat.st_dev, stat.st_ino): stat for stat in stats}
        return sum(stat.st_size for key, stat in sizes.items() if stat.st_nlink <= names[key])


def find_prunable(path: Path, checkpoints: bool = False) -> Prunable:
    """What can go.

    Args:
        checkpoints: also the ends of stages, and every checkpoint but the last.

    Raises:
        UsageError: this is no run, or one that has not ended.
        CheckpointError: its last checkpoint is damaged, so that the older ones may still be wanted.
    """
    folder = RunFolder(path)
    status = folder.read_run().get("status")
    if status is None:
        raise UsageError(f"{path} is no run folder: it has no run.json.")
    if not folder.record.is_file() or folder.owner() is not None:
        raise UsageError(
            f"{path} has not ended (it is {status}): it needs its artefacts and checkpoints to go on. End it first: "
            f"udabench resume {path}"
        )
    folders = [each for each in _folders(folder, checkpoints) if each.is_dir()]
    return Prunable(folder, tuple((each, *size_of(each)) for each in folders))


def _folders(folder: RunFolder, checkpoints: bool) -> Iterator[Path]:
    yield folder.artefacts
    if not checkpoints:
        return
    known = Checkpoints(folder.checkpoints)
    if known.last() is None:
        raise CheckpointError(f"{folder.path} has no checkpoint: nothing is left to be evaluated. Train it again.")
    yield folder.stages
    yield from (known.folder / str(number) for number in known.iterations()[:-1])
    yield from sorted(known.folder.glob("damaged-*"))


def prune_run(found: Prunable) -> None:
    """Remove it. ``run.json`` first says which artefacts are gone, so that a kill in between leaves no secret."""
    folder = found.folder
    with folder.lock():
        gone = {
            stage.name: sorted({*stage.pruned, *(each.name for each in stage.artefacts)}) for stage in standings(folder)
        }
        folder.update_run(pruned={stage: names for stage, names in gone.items() if names})
        for path, _, _ in found.parts:
            remove_folder(path)
        sweep(folder.path)
