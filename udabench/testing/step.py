"""One training step through the engine's own optimisers, watched."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.engine.optimizers import Optimizers
from udabench.engine.seeding import seed_everything
from udabench.method import Batch, Event, Loss, Method, Panel, Probe, Scalar, Stage, Update
from udabench.testing.result import Broken
from udabench.testing.subject import OpenStage

Losses = dict[str, float]
Look = Callable[[Event], None]


def run_step(method: Method, opened: OpenStage, iteration: int, seed: int = 0) -> Losses:
    """One whole step: losses back-propagated as they come, optimisers stepped, ``after_step`` called.

    Returns:
        The losses' values by name.

    Raises:
        Broken: a loss or a gradient that is not finite, a parameter changed behind the engine's back, an event of
            the wrong form.
        PluginError: whatever the engine refuses.
    """
    stage, optimizers = opened.stage, opened.optimizers
    optimizers.begin(iteration)
    batch = opened.batch(iteration)
    watch = _Watch(opened)
    losses: Losses = {}
    events = stage.step(batch, iteration, seed_everything(seed, stage.name, iteration, 0, 0))
    if not isinstance(events, Generator):
        raise Broken(f"The step of stage '{stage.name}' is no generator. Yield its losses; return only at the end.")
    for event in events:
        watch.compare()
        if isinstance(event, Loss):
            losses[event.name] = _finite(event, stage.name)
            optimizers.backward(event)
            watch.check_gradients(event)
        elif isinstance(event, Update):
            optimizers.update(event.optimizer)
        elif isinstance(event, Scalar | Panel | Probe):
            check_event(event)
        else:
            raise Broken(f"Step of stage '{stage.name}' yields a {type(event).__name__}; see udabench/method.py.")
        watch.remember()
    watch.compare()
    optimizers.finish()
    if stage.after_step is not None:
        with torch.no_grad():
            stage.after_step(iteration)
    return losses


def events_of(
    stage: Stage, batch: Batch, optimizers: Optimizers, rng: Rng, iteration: int = 0, look: Look = lambda event: None
) -> list[Event]:
    """One step of a stage, carried out by optimisers that a test has in its hands.

    Args:
        look: called after each event, once the optimisers have done what it asks.
    """
    optimizers.begin(iteration)
    events: list[Event] = []
    for event in stage.step(batch, iteration, rng):
        if isinstance(event, Loss):
            optimizers.backward(event)
        elif isinstance(event, Update):
            optimizers.update(event.optimizer)
        events.append(event)
        look(event)
    optimizers.finish()
    return events


class _Watch:
    """Notices what happens to a stage's parameters between two events, where only the method is at work."""

    def __init__(self, opened: OpenStage) -> None:
        groups = [group for built in opened.optimizers.built.values() for group in built.param_groups]
        self.parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.stage = opened.stage.name
        self.remember()

    def remember(self) -> None:
        self.values = [p._version for p in self.parameters]
        self.gradients = [_gradient_version(p) for p in self.parameters]

    def compare(self) -> None:
        if [p._version for p in self.parameters] != self.values:
            raise Broken(
                f"Stage '{self.stage}' changes a parameter of its own optimisers inside of the step. Leave that to the "
                "engine: yield a Loss, an Update, or use after_step."
            )
        if [_gradient_version(p) for p in self.parameters] != self.gradients:
            raise Broken(
                f"Stage '{self.stage}' changes gradients by itself. Do not call backward(): yield a Loss and name its "
                "optimisers in 'trains'."
            )

    def check_gradients(self, loss: Loss) -> None:
        for p in self.parameters:
            if p.grad is not None and not bool(p.grad.isfinite().all()):
                raise Broken(
                    f"The loss '{loss.name}' has a finite value, but gives a gradient that is not finite. Look for "
                    "log(0), sqrt(0) or a division by a norm that may be 0."
                )


def _gradient_version(parameter: nn.Parameter) -> tuple[int, int] | None:
    return None if parameter.grad is None else (id(parameter.grad), parameter.grad._version)


def _finite(loss: Loss, stage: str) -> float:
    if not isinstance(loss.value, Tensor):
        raise Broken(f"The value of the loss '{loss.name}' is a {type(loss.value).__name__}, not a tensor.")
    value = float(loss.value.detach().sum())
    if not np.isfinite(value):
        raise Broken(
            f"The loss '{loss.name}' of stage '{stage}' is {value}. Look for a mean over nothing, log(0), or a "
            "division by 0."
        )
    return value


def check_event(event: Scalar | Panel | Probe) -> None:
    """Raises Broken when an event has not the form that the log takes."""
    if isinstance(event, Scalar):
        if not isinstance(event.value, Tensor) or event.value.dim():
            raise Broken(f"The scalar '{event.name}' must be a 0-d tensor. Reduce it with mean().")
        if event.value.requires_grad:
            raise Broken(f"The scalar '{event.name}' carries a graph. Give it detached.")
    elif isinstance(event, Panel):
        _check_picture(event.name, event.picture())
    elif event.labels.dim() != 3 or event.labels.dtype != torch.int64:
        raise Broken(
            f"The probe '{event.name}' must hold N H W int64 labels; it holds {tuple(event.labels.shape)} "
            f"{event.labels.dtype}."
        )


def _check_picture(name: str, picture: Tensor) -> None:
    colored = picture.dim() == 4 and picture.shape[1] == 3 and picture.is_floating_point()
    if not colored and not (picture.dim() == 3 and picture.dtype in (torch.float32, torch.int64)):
        raise Broken(
            f"The panel '{name}' is {tuple(picture.shape)} {picture.dtype}. It must be N 3 H W float, N H W float, or "
            "N H W int64."
        )


@contextmanager
def foreign_generators(seed: int) -> Iterator[None]:
    """Python's and NumPy's global generators, which the engine does not seed, at some place of their own."""
    python = random.getstate()
    numpy = np.random.get_state()  # noqa: NPY002  the global generator is what is tested
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
