"""Random numbers as a function of the place in the run, and code that must leave no trace in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import torch
from torch import nn


def seed_at(*place: object) -> int:
    """63 bits that depend on every part of ``place``: the same in any process, on any machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in place)
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little") >> 1


def seed_everything(*place: object) -> torch.Generator:
    """Seed torch's global generators (Dropout, DropPath) and return a CPU generator for the method's own draws."""
    seed_globals(*place)
    return torch.Generator().manual_seed(seed_at("step", *place))


def seed_globals(*place: object) -> None:
    """Seed torch's global generators."""
    seed = seed_at("global", *place)
    # torch.manual_seed also queues a call, with its traceback, for each kind of device that is not in use: 1 ms a step.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """The global generators go on afterwards as if nothing had been drawn."""
    devices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Each submodule is afterwards in training or evaluation mode as before."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def bystander(module: nn.Module, device: torch.device) -> Iterator[None]:
    """For code that only looks: eval mode, no gradient; random state, modes and buffers are as before afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with random_state_kept(device), modes_kept(module), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)
