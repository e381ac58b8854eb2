"""Puts into a new run's folder all that the run will ever need of its ancestor, whose folder is never changed."""

from __future__ import annotations

from typing import Any

from udabench.config import RunConfig
from udabench.engine.artefacts import checked
from udabench.engine.checkpoint import Checkpoint, adopt_checkpoint
from udabench.engine.counters import Counters
from udabench.engine.ends import StageEnds
from udabench.engine.files import DiskFull, copy_tree, remove_folder
from udabench.engine.folder import RunFolder
from udabench.engine.stages import run_identity
from udabench.run.heritage import Heritage
from udabench.run.initial import write_initial


def take_over(heritage: Heritage, folder: RunFolder, config: RunConfig) -> None:
    """Weights, states and artefacts, as links where the disk allows that. ``run.json`` is written after it: a run that
    is killed in here has not begun, and begins anew.

    Raises DiskFull.
    """
    for left in (folder.initial, folder.artefacts, folder.stages, folder.checkpoints):
        remove_folder(left)
    try:
        if heritage.initial is not None:
            write_initial(heritage.initial, folder.initial)
        if heritage.end is not None:
            _take_stages(heritage, heritage.end, folder, config)
    except DiskFull as error:
        raise DiskFull(
            f"No space is left for what is taken over from {heritage.ancestor.folder.path}, which is as it was. Free "
            "some space, then start the run again."
        ) from error


def _take_stages(heritage: Heritage, end: Checkpoint, folder: RunFolder, config: RunConfig) -> None:
    theirs = heritage.ancestor.folder
    for name in heritage.stages:
        if (theirs.artefacts / checked(name)).is_dir():
            copy_tree(theirs.artefacts / name, folder.artefacts / name)
    for name in heritage.stages[:-1]:
        kept = StageEnds(theirs.stages).path(name)
        if kept.is_dir():
            copy_tree(kept, StageEnds(folder.stages).path(name))
    adopt_checkpoint(folder.checkpoints / str(heritage.iterations), end, _state(end, config))


def _state(end: Checkpoint, config: RunConfig) -> dict[str, Any]:
    """As the run itself would have written it, but for what the steps cost, which others have paid."""
    before = Counters.of_state(end.state["counters"])
    counters = Counters(
        stage=before.stage,
        stage_name=before.stage_name,
        iteration=before.iteration,
        total=before.total,
        taken=before.total,
        passed=before.passed,
        passes=before.passes,
    )
    return {**end.state, "identity": run_identity(config), "counters": counters.as_state()}
