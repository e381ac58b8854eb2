"""``stages/<name>``: the state at the end of each stage that another one follows. A further run may begin there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from udabench.engine.artefacts import checked
from udabench.engine.checkpoint import adopt_checkpoint, open_checkpoint
from udabench.engine.files import remove_folder


class StageEnds:
    """Checkpoints without optimisers, which no later stage needs. Their weights are links to those of the run's own
    checkpoints where the disk allows that.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, stage: str) -> Path:
        """Where the end of a stage lies, if it does."""
        return self.folder / checked(stage)

    def keep(self, stage: str, checkpoint: Path, before: str | None = None) -> None:
        """Keep a checkpoint as the end of a stage. Raises DiskFull.

        Args:
            before: the stage before it, whose weights it shares where the stage was a pass that changed none.
        """
        found = holder = open_checkpoint(checkpoint)
        if before is not None and self.path(before).is_dir():
            earlier = open_checkpoint(self.path(before))
            holder = earlier if earlier.weights == found.weights else found
        adopt_checkpoint(self.path(stage), holder, found.state)

    def forget(self, stages: Iterable[str]) -> None:
        """Those that a run which goes on from an older checkpoint makes anew."""
        for stage in stages:
            remove_folder(self.path(stage))
