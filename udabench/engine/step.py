"""One step: a method's generator, and what the engine does with each event."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from udabench.config import RunConfig
from udabench.engine.backend import autocast
from udabench.engine.finite import Finiteness
from udabench.engine.optimizers import Optimizers
from udabench.engine.ranks import Mean, average_running, merged
from udabench.engine.referee import Referee, Tally, scores_of
from udabench.engine.seeding import random_state_kept, seed_everything, seed_globals
from udabench.engine.watch import Watchdog
from udabench.errors import PluginError
from udabench.method import Batch, Event, Loss, Panel, Probe, Scalar, Stage, Update
from udabench.world import leads, rank


@dataclass
class Notes:
    """What is wanted of a step for the log, and what it gave.

    Attributes:
        number: of the step in the run, 1-based, as the log counts.
        logged: read scalars, score probes.
        draw: make pictures.
        draw_panel: takes a panel's name and picture.
    """

    number: int
    logged: bool = False
    draw: bool = False
    draw_panel: Callable[[str, Tensor], None] = lambda name, picture: None
    _values: dict[str, list[Tensor]] = field(default_factory=dict)
    _tallies: dict[str, Tally] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """A 0-d tensor on any device. What comes several times (micro-batches) is averaged."""
        self._values.setdefault(name, []).append(torch.as_tensor(value).detach().double())

    def count(self, name: str, tally: Tally) -> None:
        """What the referee counted of a probe. What comes several times adds up."""
        self._tallies[name] = self._tallies[name] + tally if name in self._tallies else tally

    def read(self) -> dict[str, float]:
        """All values, of the batches of all ranks: one wait for the device."""
        means = merged({name: Mean(value) for name, value in self._floats().items()}, Mean.add)
        tallies = merged({name: tally.cpu() for name, tally in self._tallies.items()}, Tally.__add__)
        return {name: float(mean) for name, mean in means.items()} | scores_of(tallies)

    def _floats(self) -> dict[str, float]:
        if not self._values:
            return {}
        means = [torch.stack(values).mean() for values in self._values.values()]
        device = next((mean.device for mean in means if mean.device.type != "cpu"), means[0].device)
        floats = torch.stack([mean.to(device, non_blocking=True) for mean in means]).tolist()
        return dict(zip(self._values, floats, strict=True))


class Stepper:
    """Drives the steps of one stage.

    Args:
        stage: whose generator runs.
        config: precision, micro-batches, seed.
        device: where the method is.
        optimizers: the stage's.
        finite, referee, watchdog: the run's.
        model: the method, whose running statistics are those of all ranks.
    """

    def __init__(
        self,
        stage: Stage,
        config: RunConfig,
        device: torch.device,
        optimizers: Optimizers,
        finite: Finiteness,
        referee: Referee,
        watchdog: Watchdog,
        model: nn.Module | None = None,
    ) -> None:
        self.stage = stage
        self.config = config
        self.device = device
        self.optimizers = optimizers
        self.finite = finite
        self.referee = referee
        self.watchdog = watchdog
        self.model = model

    def step(self, batches: Iterable[Batch], iteration: int, notes: Notes) -> int:
        """One optimiser step over its micro-batches.

        Args:
            batches: ``engine.accumulate`` of them, on the device.
            iteration: of the stage, 0-based.

        Returns:
            the number of images on this rank.

        Raises:
            PluginError: the step breaks its contract.
            NotFinite: a loss is NaN or infinite; on a GPU it shows later, when the log is written.
        """
        self.optimizers.begin(iteration)
        images = 0
        # The one context around the whole step: a generator may be suspended inside a context of its own, and what
        # happens meanwhile must nest in it.
        with autocast(self.config.engine, self.device):
            for micro, batch in enumerate(batches):
                names = sample_names(batch)
                images += len(names)
                self.finite.begin(notes.number - 1, names)
                self._run(batch, iteration, micro, notes)
        if self.device.type == "cpu":
            self.finite.check()
        self.optimizers.finish()
        if self.model is not None:
            average_running(self.model)
        if self.stage.after_step is not None:
            with torch.no_grad():
                self.stage.after_step(iteration)
        return images

    def _run(self, batch: Batch, iteration: int, micro: int, notes: Notes) -> None:
        # The method draws the same on every rank; Dropout and DropPath do not.
        rng = seed_everything(self.config.seed, self.stage.name, iteration, 0, micro)
        if not leads():
            seed_globals(self.config.seed, self.stage.name, iteration, rank(), micro)
        generator = self.stage.step(batch, iteration, rng)
        if not isinstance(generator, Generator):
            raise PluginError(
                f"The step of stage '{self.stage.name}' returned {type(generator).__name__}; it must be a generator "
                "that yields losses."
            )
        last = micro == self.config.engine.accumulate - 1
        with closing(generator):
            for event in generator:
                with torch.autocast(self.device.type, enabled=False):
                    self._take(event, last, notes)

    def _take(self, event: Event, last: bool, notes: Notes) -> None:
        match event:
            case Loss():
                self._take_loss(event, notes)
            case Update():
                # Before the last micro-batch the gradient is not whole yet.
                if last:
                    self.optimizers.update(event.optimizer)
            case Scalar():
                if notes.logged:
                    notes.add(event.name, event.value)
            case Panel():
                if notes.draw:
                    with torch.no_grad(), random_state_kept(self.device):
                        notes.draw_panel(event.name, event.picture())
            case Probe():
                if notes.logged:
                    self._take_probe(event, notes)
            case _:
                raise PluginError(
                    f"The step of stage '{self.stage.name}' yielded {_described(event)}; it may yield Loss, Update, "
                    "Scalar, Panel and Probe."
                )

    def _take_loss(self, loss: Loss, notes: Notes) -> None:
        self.optimizers.backward(loss, self.config.engine.accumulate)
        self.finite.see(loss.name, loss.value, notes.number - 1)
        if notes.logged:
            notes.add(f"loss/{loss.name}", loss.value)
            for part, value in loss.parts.items():
                notes.add(f"loss/{loss.name}/{part}", value)

    def _take_probe(self, probe: Probe, notes: Notes) -> None:
        with random_state_kept(self.device):
            notes.count(probe.name, self.referee.count(probe))
        self.watchdog.see_labels(probe.name, probe.labels, notes.number)


def sample_names(batch: Batch) -> tuple[str, ...]:
    """Names of all samples, the source's first."""
    return tuple(name for samples in batch if samples is not None for name in samples.names)


def _described(event: Any) -> str:
    return f"{event!r}" if event is None else f"a {type(event).__name__}"
