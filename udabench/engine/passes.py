"""A stage's ``prepare``: how it runs, and what is logged of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from udabench.config import EngineConfig
from udabench.engine.backend import autocast
from udabench.engine.ranks import Mean, merged
from udabench.engine.referee import Referee, Tally, scores_of
from udabench.engine.seeding import modes_kept, random_state_kept
from udabench.errors import PluginError
from udabench.method import Method, Noted, Panel, Probe, Remark, Scalar, Stage, Workspace


class PassNotes:
    """What a pass gave for the log, put together over all of its images.

    Args:
        device: where the method is.
        referee: scores probes.
        draw_panel: takes a panel's name and picture.
        see_labels: takes a probe's name and labels.
        warn: takes a remark.
    """

    def __init__(
        self,
        device: torch.device,
        referee: Referee,
        draw_panel: Callable[[str, Tensor], None] = lambda name, picture: None,
        see_labels: Callable[[str, Tensor], None] = lambda name, labels: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.device = device
        self._referee = referee
        self._draw_panel = draw_panel
        self._see_labels = see_labels
        self._warn = warn
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._tallies: dict[str, Tally] = {}
        self._drawn: set[str] = set()

    def take(self, event: Noted, stage: str) -> None:
        """One event. Raises PluginError on any other kind."""
        match event:
            case Scalar():
                value = torch.as_tensor(event.value).detach().double()
                self._sums[event.name] = self._sums[event.name] + value if event.name in self._sums else value
                self._counts[event.name] = self._counts.get(event.name, 0) + 1
            case Panel():
                if event.name not in self._drawn:
                    self._drawn.add(event.name)
                    self._draw_panel(event.name, event.picture())
            case Probe():
                new = self._referee.count(event)
                self._tallies[event.name] = self._tallies[event.name] + new if event.name in self._tallies else new
                self._see_labels(event.name, event.labels)
            case Remark():
                self._warn(event.text)
            case _:
                raise PluginError(
                    f"The prepare of stage '{stage}' yielded a {type(event).__name__}; it may yield Scalar, Panel, "
                    "Probe and Remark. A pass trains nothing: use a stage with iterations for losses."
                )

    def read(self) -> dict[str, float]:
        """All values of the pass, over the images of all ranks."""
        sums = {name: Mean(float(total), self._counts[name]) for name, total in self._sums.items()}
        tallies = {name: tally.cpu() for name, tally in self._tallies.items()}
        means = merged(sums, Mean.add)
        return {name: float(mean) for name, mean in means.items()} | scores_of(merged(tallies, Tally.__add__))


def run_pass(method: Method, stage: Stage, workspace: Workspace, engine: EngineConfig, notes: PassNotes) -> None:
    """Run a stage's ``prepare`` to its end: eval mode, no gradient, the run's autocast.

    Modes are as before afterwards; buffers keep what the pass gave them. Logging draws nothing.

    Raises:
        PluginError: it yields what a pass cannot log.
    """
    assert stage.prepare is not None
    device = notes.device
    with modes_kept(method), torch.no_grad(), autocast(engine, device):
        method.eval()
        events = stage.prepare(workspace)
        if events is None:
            return
        if not isinstance(events, Iterator):
            raise PluginError(
                f"The prepare of stage '{stage.name}' returned a {type(events).__name__}; it must return nothing, "
                "or be a generator of Scalar, Panel, Probe and Remark."
            )
        for event in events:
            with torch.autocast(device.type, enabled=False), random_state_kept(device):
                notes.take(event, stage.name)
