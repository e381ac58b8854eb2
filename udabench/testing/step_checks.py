"""Checks of what a method does: its steps, its randomness, its state, its predictions, on CPU and CUDA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from udabench.method import Method
from udabench.testing.result import Broken, Skip
from udabench.testing.step import Losses, foreign_generators, run_step
from udabench.testing.subject import CPU, Subject

STEPS = 3


def check_steps(subject: Subject) -> str:
    """Steps of every stage give finite losses, and gradients only where they are named."""
    method = subject.build()
    said = []
    for opened in subject.open(method):
        for iteration in range(min(STEPS, opened.stage.iterations)):
            losses = run_step(method, opened, iteration)
        if not losses:
            raise Broken(f"The step of stage '{opened.stage.name}' yields no Loss: nothing is trained.")
        said.append(f"{opened.stage.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in losses.items()))
    wrong = [name for name, p in method.named_parameters() if not bool(p.isfinite().all())]
    if wrong:
        raise Broken(f"The parameter {wrong[0]} is not finite after {STEPS} steps.")
    return "; ".join(said)


def check_randomness(subject: Subject) -> str:
    """Equal seeds give equal losses, whatever state the generators are in that the engine does not seed."""
    runs = []
    for other in (1, 2):
        with foreign_generators(other):
            method = subject.build()
            runs.append([run_step(method, opened, i) for opened in subject.open(method) for i in range(2)])
    for first, second in zip(*runs, strict=True):
        _compare(
            first,
            second,
            "differs between two runs of the same seed. Draw from the step's 'rng' (or torch's global generator, which "
            "the engine seeds), never from 'random', 'numpy.random', the clock, or the order of a set; keep nothing in "
            "globals or class attributes",
        )
    return "rng and torch's seeded generators only"


def check_state(subject: Subject) -> str:
    """A method that is built anew and given the state of another goes on exactly as that one."""
    method = subject.build()
    opened = subject.first(method)
    for iteration in range(STEPS):
        run_step(method, opened, iteration)
    state = _state_of(method)
    optimizers = {key: value.clone() for key, value in opened.optimizers.state().items()}
    whole = _predictions(method, subject.whole())
    losses = run_step(method, opened, STEPS)
    again = subject.build()
    reopened = subject.first(again)
    again.load_state_dict(state)
    reopened.optimizers.load(optimizers)
    for name, logits in _predictions(again, subject.whole()).items():
        if not torch.equal(logits, whole[name]):
            raise Broken(f"The prediction of '{name}' is another after the state was stored and loaded. {_REMEDY}")
    _compare(losses, run_step(again, reopened, STEPS), f"is another after the state was stored and loaded. {_REMEDY}")
    return f"{len(state)} tensors hold everything"


_REMEDY = (
    "Something lies outside of state_dict: keep trained networks in submodules, and queues, counters and prototypes "
    "in buffers (self.register_buffer); use the step's 'iteration' instead of a counter"
)


def check_predict(subject: Subject) -> str:
    """Predictions are logits of the task's classes, for whole images, alone, and leave no trace."""
    method = subject.build().eval()
    before = {key: value.clone() for key, value in _state_of(method).items()}
    samples = subject.whole()
    classes = len(subject.plan.task.classes)
    if not method.predictors():
        raise Broken("predictors() is empty. Name at least one, the paper's choice first.")
    for name, logits in _predictions(method, samples).items():
        if not isinstance(logits, Tensor) or logits.dim() != 4 or tuple(logits.shape[:2]) != (1, classes):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise Broken(f"The prediction of '{name}' must be N C h w logits with C = {classes}; it is {shape}.")
        if not bool(logits.isfinite().all()):
            raise Broken(f"The prediction of '{name}' is not finite.")
    after = _state_of(method)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    if changed:
        raise Broken(f"A prediction changes the state '{changed[0]}'. Predict in eval mode, without updates.")
    return ", ".join(method.predictors())


def check_cuda(subject: Subject) -> str:
    """A step and a prediction on the GPU."""
    if not torch.cuda.is_available():
        raise Skip("no CUDA device")
    device = torch.device("cuda")
    method = subject.build(device)
    for opened in subject.open(method, device):
        run_step(method, opened, 0)
    _predictions(method, subject.whole(device))
    return torch.cuda.get_device_name(device)


def _predictions(method: Method, samples: Any) -> dict[str, Tensor]:
    modes = [(part, part.training) for part in method.modules()]
    method.eval()
    with torch.no_grad():
        found = {name: predict(samples) for name, predict in method.predictors().items()}
    for part, training in modes:
        part.training = training
    return found


def _state_of(method: Method) -> dict[str, Tensor]:
    state = {}
    for key, value in method.state_dict().items():
        if not isinstance(value, Tensor):
            raise Broken(f"The state '{key}' is a {type(value).__name__}. Only tensors are stored: use a buffer.")
        state[key] = value.detach().to(CPU, copy=True)
    return state


def _compare(first: Losses, second: Losses, said: str) -> None:
    if list(first) != list(second):
        raise Broken(f"Which losses a step yields ({', '.join(first)} and then {', '.join(second)}) {said}.")
    for name, value in first.items():
        if value != second[name]:
            raise Broken(f"The loss '{name}' ({value!r} and then {second[name]!r}) {said}.")
