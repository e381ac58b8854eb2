"""How torch runs: threads, kernels, memory format, compilation, autocast."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from udabench.config import EngineConfig
from udabench.method import Batch, Samples
from udabench.network import Network
from udabench.world import world_size

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def configured(engine: EngineConfig, device: torch.device) -> Iterator[None]:
    """torch's global switches for a training; restored afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if engine.threads is not None:
        torch.set_num_threads(engine.threads)
    if engine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    # Crops have one size, so the search for the fastest kernel pays; but it may choose another one each time.
    torch.backends.cudnn.benchmark = device.type == "cuda" and not engine.deterministic
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def place(module: nn.Module, engine: EngineConfig, device: torch.device) -> None:
    """Move to the device, choose norms and memory format, compile the networks. May be repeated."""
    module.to(device)
    if engine.sync_norms and world_size() > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    if engine.channels_last:
        module.to(memory_format=torch.channels_last)
    if engine.compile:
        _compile_networks(module)


def _compile_networks(module: nn.Module) -> None:
    """In place: ``torch.compile(network)`` would prefix the keys of the state. A network in a network comes along."""
    for child in module.children():
        if not isinstance(child, Network):
            _compile_networks(child)
        elif child._compiled_call_impl is None:
            child.compile()


def autocast(engine: EngineConfig, device: torch.device) -> torch.autocast:
    """The context of a step's forward passes.

    Without the cache of cast weights: an optimiser may be stepped in the middle of a step, and the cache would keep
    the values of before.
    """
    dtype = DTYPES[engine.precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32, cache_enabled=False)


def arrange(batch: Batch, engine: EngineConfig) -> Batch:
    """The batch's images in the configured memory format."""
    if not engine.channels_last:
        return batch

    def one(samples: Samples | None) -> Samples | None:
        if samples is None:
            return None
        context = samples.context
        if context is not None:
            context = context._replace(image=context.image.contiguous(memory_format=torch.channels_last))
        return samples._replace(image=samples.image.contiguous(memory_format=torch.channels_last), context=context)

    return Batch(one(batch.source), one(batch.target))


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
