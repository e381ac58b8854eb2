"""What the conductor calls."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from udabench.config import RunConfig
from udabench.engine.backend import configured, place
from udabench.engine.checkpoint import Checkpoint, Checkpoints, load_model, open_checkpoint
from udabench.engine.counters import Counters
from udabench.engine.evaluation import Evaluate
from udabench.engine.files import DiskFull
from udabench.engine.folder import RunFolder
from udabench.engine.log import RunLog, SilentLog
from udabench.engine.loop import OpenBatches, Trainer
from udabench.engine.referee import Referee, Truth
from udabench.engine.signals import Stopped, listening
from udabench.engine.stages import read_stages
from udabench.engine.watch import Watchdog
from udabench.engine.workspace import OpenImages, no_images
from udabench.errors import CheckpointError
from udabench.method import Method
from udabench.task import Task
from udabench.world import leads


@dataclass(frozen=True)
class TrainResult:
    """What a training cost and what was noticed, over all of its sessions.

    Attributes:
        iterations: optimiser steps.
        images_seen: of both domains.
        wall_seconds: all of the training, evaluations and checkpoints included.
        step_seconds: mean of a step, waiting for data included.
        wait_share: share of the steps' time that was spent waiting for data.
        peak_memory: bytes, allocated on the GPU or resident in the process (of rank 0).
        warnings: of the collapse watchdog.
        evaluations: iteration and values of each evaluation during the training.
        passes: stage, run's iteration and values of each pass that logged something.
    """

    iterations: int
    images_seen: int
    wall_seconds: float
    step_seconds: float
    wait_share: float
    peak_memory: int
    warnings: tuple[str, ...]
    evaluations: tuple[tuple[int, Mapping[str, float]], ...]
    passes: tuple[tuple[str, int, Mapping[str, float]], ...] = ()


def train(
    method: Method,
    config: RunConfig,
    task: Task,
    folder: RunFolder,
    open_batches: OpenBatches,
    device: torch.device,
    *,
    open_images: OpenImages = no_images,
    evaluate: Evaluate | None = None,
    truth: Truth | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train from wherever the run folder stands to the end. Every rank calls it; rank 0 writes.

    The method must be built as at the run's start (same seed, same weights); the last checkpoint is then loaded into
    it. A run that is complete returns at once, with its weights loaded. Sets ``status`` in ``run.json`` to ``running``,
    ``stopped`` or ``failed``; ``finished`` is the conductor's to say.

    Raises:
        Stopped: after SIGINT or SIGTERM; everything is saved.
        UserError: another process has the folder, no space, a loss that is no number.
        PluginError: the method breaks its contract.
    """
    with folder.lock(), configured(config.engine, device), listening() as stop:
        sessions = int(folder.read_run().get("sessions", 0))
        whole = sum(stage.iterations for stage in read_stages(method, config))
        log = (RunLog if leads() else SilentLog)(folder, task.classes, whole, console)
        watchdog = Watchdog(task.classes.names, log.warn)
        referee = Referee(len(task.classes), truth)
        trainer = Trainer(
            method, config, folder, open_batches, open_images, device, log, stop, referee, watchdog, evaluate
        )
        folder.update_run(status="running", sessions=sessions + 1)
        try:
            counters = trainer.run()
        except BaseException as error:
            # With a full disk the status cannot be written either; the error itself matters more.
            with suppress(DiskFull):
                folder.update_run(status="stopped" if isinstance(error, Stopped) else "failed")
            raise
        finally:
            log.close()
    return _result(counters, watchdog)


def load_trained(
    method: Method, config: RunConfig, folder: RunFolder, device: torch.device, path: Path | None = None
) -> Checkpoint:
    """Bring a freshly built method to where a checkpoint stands, for evaluation or prediction.

    Args:
        path: the checkpoint's folder; None: the last sound one of the run.

    Raises:
        CheckpointError: none is there, it is damaged, or it belongs to another network.
    """
    checkpoint = Checkpoints(folder.checkpoints).latest() if path is None else open_checkpoint(path)
    if checkpoint is None:
        raise CheckpointError(f"There is no checkpoint in {folder.checkpoints}. Train first: udabench resume RUN.")
    stages = read_stages(method, config)
    for stage in stages[: int(checkpoint.state["counters"]["stage"]) + 1]:
        if stage.start is not None:
            stage.start()
    load_model(method, checkpoint)
    place(method, config.engine, device)
    return checkpoint


def _result(counters: Counters, watchdog: Watchdog) -> TrainResult:
    return TrainResult(
        iterations=counters.total,
        images_seen=counters.images_seen,
        wall_seconds=counters.wall_seconds,
        step_seconds=counters.loop_seconds / max(counters.total - counters.taken, 1),
        wait_share=counters.wait_seconds / max(counters.loop_seconds, 1e-9),
        peak_memory=counters.peak_memory,
        warnings=tuple(watchdog.warnings),
        evaluations=tuple(counters.evaluations),
        passes=tuple(counters.passes),
    )
