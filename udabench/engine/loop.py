"""The training loop, top to bottom: stages, preparations, steps, evaluations, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from udabench.config import RunConfig
from udabench.data.batches import to_device
from udabench.engine.artefacts import Artefacts
from udabench.engine.backend import arrange, peak_memory, place
from udabench.engine.checkpoint import Checkpoint, Checkpoints, load_model, open_checkpoint
from udabench.engine.counters import Counters, Laps
from udabench.engine.ends import StageEnds
from udabench.engine.evaluation import Evaluate
from udabench.engine.failure import save_failure
from udabench.engine.finite import Finiteness, NotFinite, check_weights
from udabench.engine.folder import RunFolder
from udabench.engine.log import Pace, RunLog
from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.engine.passes import PassNotes, run_pass
from udabench.engine.referee import Referee
from udabench.engine.seeding import bystander, seed_everything
from udabench.engine.signals import Stopped, StopRequest
from udabench.engine.stages import check_checkpoint, read_stages, run_identity
from udabench.engine.step import Notes, Stepper
from udabench.engine.watch import Watchdog
from udabench.engine.workspace import OpenImages, RunWorkspace
from udabench.method import Batch, Method, Stage
from udabench.world import gather_values, leads, meet, spread, world_size

OpenBatches = Callable[[Stage, int, int, int], Iterator[Batch]]
"""``open_batches(stage, version, start, stop)``: batches ``start`` to ``stop - 1`` of a stage, on the CPU, in order,
with artefacts as they stand at ``version`` (the iteration of the last ``prepare``). With gradient accumulation they
count micro-batches. Closed (``close()``) when it is used up or no longer wanted."""


class Trainer:
    """A run's training, from wherever its folder stands to the end.

    Args:
        method: freshly built, as at the run's start.
        config: the run's.
        folder: locked by the caller.
        open_batches, open_images: the data.
        device: where to train.
        log: not yet opened.
        stop: set by a signal.
        evaluate: called each ``engine.eval_every`` steps, but not after the last one.
        referee: scores probes.
    """

    def __init__(
        self,
        method: Method,
        config: RunConfig,
        folder: RunFolder,
        open_batches: OpenBatches,
        open_images: OpenImages,
        device: torch.device,
        log: RunLog,
        stop: StopRequest,
        referee: Referee,
        watchdog: Watchdog,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.method = method
        self.config = config
        self.engine = config.engine
        self.folder = folder
        self.open_batches = open_batches
        self.open_images = open_images
        self.device = device
        self.log = log
        self.stop = stop
        self.referee = referee
        self.watchdog = watchdog
        self.evaluate = evaluate
        self.counters = Counters()
        self.finite = Finiteness()
        self.stages = read_stages(method, config)
        self._whole = sum(stage.iterations for stage in self.stages)
        self.artefacts = Artefacts(folder.artefacts, self.stages)
        self.ends = StageEnds(folder.stages)
        self.checkpoints = Checkpoints(folder.checkpoints, config.engine.keep_checkpoints)
        self.scaler = make_scaler(config.engine.precision, device)
        self._started = 0
        self._saved: int | None = None
        self._stored: dict[str, Tensor] = {}
        self._session = time.perf_counter()
        self._earlier_seconds = 0.0
        self._laps = Laps(self.counters)

    def run(self) -> Counters:
        """Train. Raises Stopped after a signal, UserError on a loss that is no number or a full disk."""
        self._place()
        self._restore()
        try:
            for index in range(self.counters.stage, len(self.stages)):
                self._run_stage(index)
                self._keep_end(index)
        except NotFinite as failure:
            stage = self.counters.stage_name
            raise save_failure(failure, self.folder.failure, stage, self.method, self._state()) from failure
        self._take_time()
        return self.counters

    def _place(self) -> None:
        """On the device; every rank with the values of rank 0."""
        place(self.method, self.engine, self.device)
        spread(self.method)

    # Where a run begins and goes on

    def _restore(self) -> None:
        """Take over the last sound checkpoint, and forget what came after it."""
        messages: list[str] = []
        checkpoint = self._last(messages.append)
        total = 0 if checkpoint is None else int(checkpoint.state["counters"]["total"])
        self.log.open(total)
        for message in messages:
            self.log.warn(message)
        if checkpoint is not None:
            self._load(checkpoint)
        meet()
        if leads():
            self.checkpoints.tidy(total if checkpoint is not None else -1)
            self.artefacts.forget_after(total)
            self.ends.forget(stage.name for stage in self.stages[self.counters.stage :])
        meet()

    def _last(self, say: Callable[[str], None]) -> Checkpoint | None:
        """Rank 0 chooses."""
        found = self.checkpoints.latest(say) if leads() else None
        path = gather_values(None if found is None else found.path)[0]
        return found if leads() or path is None else open_checkpoint(path)

    def _load(self, checkpoint: Checkpoint) -> None:
        check_checkpoint(checkpoint, self.stages, self.config)
        state = checkpoint.state
        self.counters = Counters.of_state(state["counters"])
        for index in range(self.counters.stage + 1):
            self._start(index)
        load_model(self.method, checkpoint)
        self._stored = checkpoint.optimizers()
        self.scaler = make_scaler(self.engine.precision, self.device, state["scaler"])
        self.watchdog.load(state["watchdog"])
        self._earlier_seconds = self.counters.wall_seconds
        self._laps = Laps(self.counters)
        self._saved = self.counters.total
        self.log.say(f"Going on from the checkpoint of iteration {self.counters.total}.")

    # A stage

    def _start(self, index: int) -> None:
        """Enter a stage, once. Its networks may be new ones afterwards, so the declarations are read again."""
        if index < self._started:
            return
        stage = self.stages[index]
        if stage.start is not None:
            seed_everything(self.config.seed, stage.name, "start")
            stage.start()
            self._place()
            self.stages = read_stages(self.method, self.config)
        self.method.train()
        self._started = index + 1

    def _run_stage(self, index: int) -> None:
        self._start(index)
        stage, counters = self.stages[index], self.counters
        if index != counters.stage:
            counters.stage, counters.iteration, self._stored = index, 0, {}
            counters.passed = False
        counters.stage_name = stage.name
        if stage.iterations == 0:
            self._run_pass_alone(stage)
            return
        if counters.iteration >= stage.iterations:
            return
        self.log.say(f"Stage {stage.name}: {stage.iterations} iterations.")
        optimizers = Optimizers(stage, self.scaler)
        optimizers.load(self._stored)
        stepper = Stepper(
            stage, self.config, self.device, optimizers, self.finite, self.referee, self.watchdog, self.method
        )
        while counters.iteration < stage.iterations:
            self._prepare(stage, optimizers)
            self._run_until_refresh(stage, stepper)

    def _keep_end(self, index: int) -> None:
        """The last stage's is the last checkpoint."""
        if leads() and index + 1 < len(self.stages):
            last = self.checkpoints.folder / str(self.counters.total)
            before = self.stages[index - 1].name if index else None
            self.ends.keep(self.stages[index].name, last, before)

    def _run_pass_alone(self, stage: Stage) -> None:
        """A stage without iterations: what it left in the method is saved, though no step was made."""
        if self.counters.passed:
            return
        optimizers = Optimizers(stage, self.scaler)
        self._prepare(stage, optimizers)
        self.counters.passed = True
        self._saved = None
        self._save(optimizers)

    def _prepare(self, stage: Stage, optimizers: Optimizers) -> None:
        """At a refresh, after a checkpoint: a run that is killed here begins the pass again and skips what is done."""
        iteration = self.counters.iteration
        if stage.prepare is None or iteration != self._version(stage):
            return
        self._save(optimizers)
        self.log.say(f"Stage {stage.name}: preparing at iteration {iteration}.")
        here = (self.config.seed, stage.name, "prepare", iteration)
        folder = self.artefacts.version(stage.name, iteration)
        # Behind the checkpoint, so that a pass that begins again takes its entries' place; alone there is no step.
        number = self.counters.total + (stage.iterations > 0)
        notes = PassNotes(
            self.device,
            self.referee,
            lambda name, picture: self.log.panel(name, picture, number),
            lambda name, labels: self.watchdog.see_labels(name, labels, number),
            self.log.warn,
        )
        seed_everything(*here)
        workspace = RunWorkspace(folder, self.open_images, self.device, here, self._between_images)
        run_pass(self.method, stage, workspace, self.engine, notes)
        values = {name: value for name, value in notes.read().items() if math.isfinite(value)}
        if values:
            self.log.values(stage.name, number, values)
            self.counters.passes.append((stage.name, self.counters.total, values))
        spread(self.method)
        if self.stop.agree():
            raise self._stopped()

    def _version(self, stage: Stage) -> int:
        """The iteration whose ``prepare`` is in force."""
        every = stage.prepare_every
        return self.counters.iteration // every * every if every and stage.prepare else 0

    def _run_until_refresh(self, stage: Stage, stepper: Stepper) -> None:
        version, done, micro = self._version(stage), self.counters.iteration, self.engine.accumulate
        end = min(stage.iterations, version + stage.prepare_every) if stage.prepare_every else stage.iterations
        batches = self.open_batches(stage, version, done * micro, end * micro)
        try:
            while self.counters.iteration < end:
                self._step(batches, stepper)
                self._after_step(stage, stepper.optimizers)
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    # A step

    def _step(self, batches: Iterator[Batch], stepper: Stepper) -> None:
        counters, began = self.counters, time.perf_counter()
        notes = self._notes(counters.total + 1)
        fetched = self._fetch(batches)
        counters.images_seen += world_size() * stepper.step(fetched, counters.iteration, notes)
        counters.iteration += 1
        counters.total += 1
        if notes.logged:
            values = notes.read()
            self.finite.check()
        counters.loop_seconds += time.perf_counter() - began
        if notes.logged:
            self._log(values, stepper)
        self.log.advance(counters.total)

    def _fetch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """One step's micro-batches, on the device."""
        for _ in range(self.engine.accumulate):
            began = time.perf_counter()
            fetched = list(islice(batches, 1))
            self.counters.wait_seconds += time.perf_counter() - began
            if not fetched:
                raise RuntimeError("the stream of batches ended before the stage")
            yield arrange(to_device(fetched[0], self.device), self.engine)

    def _notes(self, number: int) -> Notes:
        def draw(name: str, picture: Tensor) -> None:
            self.log.panel(name, picture, number)

        def due(every: int) -> bool:
            return every > 0 and (number in (1, self._whole) or number % every == 0)

        return Notes(number, due(self.engine.log_every), due(self.engine.panel_every), draw)

    def _log(self, values: dict[str, float], stepper: Stepper) -> None:
        counters = self.counters
        seconds, waiting = self._laps.lap()
        counters.peak_memory = max(counters.peak_memory, peak_memory(self.device))
        values |= {f"lr/{name}": rate for name, rate in stepper.optimizers.rates().items()}
        if self.scaler.is_enabled():
            values["scale"] = float(self.scaler.get_scale())
        values |= {"time/step": seconds, "time/wait_share": waiting, "memory": float(counters.peak_memory)}
        self.log.step(stepper.stage.name, counters.total, values, Pace(1 / seconds, counters.peak_memory))

    # Between steps

    def _after_step(self, stage: Stage, optimizers: Optimizers) -> None:
        """Evaluate before the checkpoint, which then holds the result: it is neither lost nor made twice."""
        engine, total = self.engine, self.counters.total
        if engine.eval_every and total % engine.eval_every == 0 and total < self._whole:
            self._evaluate(stage)
        ended, stopping = self.counters.iteration == stage.iterations, self.stop.agree()
        if ended or total % engine.checkpoint_every == 0 or stopping:
            self._save(optimizers)
        if stopping:
            raise self._stopped()

    def _evaluate(self, stage: Stage) -> None:
        if self.evaluate is None:
            return
        total = self.counters.total
        with bystander(self.method, self.device):
            values, matrices = self.evaluate(self.method, total)
        self.counters.evaluations.append((total, dict(values)))
        self.log.values(stage.name, total, {f"eval/{name}": value for name, value in values.items()})
        for predictor, matrix in matrices.items():
            self.watchdog.see_matrix(f"evaluation of {predictor}", matrix, total)

    def _save(self, optimizers: Optimizers) -> None:
        """A checkpoint of now, unless there is one."""
        counters = self.counters
        if self._saved == counters.total:
            return
        self.finite.check()
        check_weights(self.method, counters.total)
        self._take_time()
        self.log.sync()
        if leads():
            self.checkpoints.write(counters.total, self._state(), self.method, optimizers.state())
        self._saved = counters.total
        self.folder.update_run(iteration=counters.total)

    def _state(self) -> dict[str, Any]:
        return {
            "identity": run_identity(self.config),
            "counters": self.counters.as_state(),
            "scaler": self.scaler.state_dict(),
            "watchdog": self.watchdog.state(),
        }

    def _take_time(self) -> None:
        self.counters.wall_seconds = self._earlier_seconds + time.perf_counter() - self._session
        self.counters.peak_memory = max(self.counters.peak_memory, peak_memory(self.device))

    def _between_images(self, place: int, whole: int) -> None:
        """Of a pass: the ranks do not wait for each other."""
        if self.stop:
            raise self._stopped()
        self.log.looking(self.counters.stage_name, place, whole)

    def _stopped(self) -> Stopped:
        saved = 0 if self._saved is None else self._saved
        return Stopped(
            f"Stopped by {self.stop.name} at iteration {self.counters.total}; the checkpoint of iteration {saved} "
            f"is saved. Go on with: udabench resume {self.folder.path}"
        )
