"""Disk that a run takes at most, told before it starts, and refused where there is less."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from udabench.config import RunConfig
from udabench.engine.declared import declaration, refreshes
from udabench.engine.stages import enter
from udabench.errors import UserError
from udabench.method import Domain, Method, Optimizer, Stage

STATE_COPIES = {"adamw": 2, "adam": 2, "sgd": 1}
"""Values that an optimiser keeps for each parameter."""


@dataclass(frozen=True)
class DiskUse:
    """Bytes.

    Attributes:
        checkpoint: of the largest, with its optimisers.
        checkpoints: of all that lie side by side at some moment: one more than are kept.
        ends: of the states at the ends of stages.
        artefacts: of what passes write, by what their stages declare (``Stage.pixel_bytes``); None where the images
            cannot be counted.
        passes: how many there are in all.
    """

    checkpoint: int
    checkpoints: int
    ends: int
    artefacts: int | None
    passes: int

    @property
    def total(self) -> int:
        return self.checkpoints + self.ends + (self.artefacts or 0)

    def described(self) -> str:
        """For people."""
        parts = [f"checkpoints {decimal(self.checkpoints)}"]
        if self.ends:
            parts.append(f"ends of stages {decimal(self.ends)}")
        if self.passes:
            known = "unknown: the images cannot be counted" if self.artefacts is None else decimal(self.artefacts)
            parts.append(f"artefacts of {self.passes} pass{'es' if self.passes > 1 else ''} {known}")
        return f"{decimal(self.total)} at most ({', '.join(parts)})"


def state_size(method: Method) -> int:
    """Bytes of what a checkpoint stores of a method, as it is now."""
    return sum(tensor.numel() * tensor.element_size() for tensor in method.state_dict().values())


def state_sizes(method: Method) -> list[int]:
    """The same in each stage. They are entered, and may bring networks along: it is of no use for a run any more."""
    sizes = []
    for index in range(len(method.stages())):
        enter(method, index)
        sizes.append(state_size(method))
    return sizes


def disk_use(
    stages: Sequence[Stage], states: Sequence[int], config: RunConfig, images: Mapping[Domain, int], taken: int = 0
) -> DiskUse:
    """What a run will take.

    Args:
        stages: the method's.
        states: bytes of its state in each of them.
        images: training images of each domain that can be counted.
        taken: stages that are taken over from another run; their files are links.
    """
    checkpoint = max(state + _optimizer_bytes(stage) for stage, state in zip(stages, states, strict=True))
    passes = [(stage, refreshes(declaration(stage))) for stage in stages[taken:] if stage.prepare is not None]
    return DiskUse(
        checkpoint=checkpoint,
        checkpoints=(config.engine.keep_checkpoints + 1) * checkpoint,
        ends=sum(states[taken:-1]),
        artefacts=_artefact_bytes(passes, config, images),
        passes=sum(count for _, count in passes),
    )


def _artefact_bytes(passes: Sequence[tuple[Stage, int]], config: RunConfig, images: Mapping[Domain, int]) -> int | None:
    """Of every image of the target (of the source, where a stage asks for that alone), at the size of training."""
    total = 0.0
    for stage, count in passes:
        domain: Domain = "target" if "target" in stage.domains else "source"
        if domain not in images:
            return None
        size = config.data.target_size if domain == "target" else config.data.source_size
        assert size is not None, "plans resolve the sizes"
        total += count * images[domain] * size.height * size.width * stage.pixel_bytes
    return round(total)


def _optimizer_bytes(stage: Stage) -> int:
    return sum(_values(optimizer) * STATE_COPIES[optimizer.kind] for optimizer in stage.optimizers.values())


def _values(optimizer: Optimizer) -> int:
    return sum(p.numel() * p.element_size() for group in optimizer.groups for p in group.parameters)


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder is or would be."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def check_space(use: DiskUse, folder: Path) -> None:
    """Raises UserError where a run would run out of space."""
    free = free_space(folder)
    if free < use.total:
        raise UserError(
            f"The run needs {use.described()}, but only {decimal(free)} are free at {folder}. Free some space "
            "(udabench prune removes what finished runs no longer need), choose another folder with --runs, or keep "
            "fewer checkpoints: --set engine.keep_checkpoints=1."
        )
