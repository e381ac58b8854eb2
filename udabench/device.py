"""Which device to run on."""

from __future__ import annotations

import torch

from udabench.errors import UsageError
from udabench.world import local_rank, local_size, world_size


def choose_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``. Raises UsageError when it is not there.

    Of several processes that train together each takes the GPU of its local rank.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"Unknown device '{name}'. Use auto, cpu, cuda or cuda:<number>.") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"Device '{name}' is not supported. Use auto, cpu, cuda or cuda:<number>.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"Device '{name}' was asked for, but torch finds no CUDA device. Use --device cpu or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"Device '{name}' is not there; torch finds {torch.cuda.device_count()} CUDA device(s).")
    return _of_rank(device) if device.type == "cuda" and world_size() > 1 else device


def _of_rank(device: torch.device) -> torch.device:
    """This process's own GPU, also torch's current one."""
    if device.index is not None:
        raise UsageError(f"Each process of torchrun takes a GPU of its own, not all '{device}'. Use --device cuda.")
    there = torch.cuda.device_count()
    if local_size() > there:
        raise UsageError(
            f"torchrun started {local_size()} processes on this machine, but torch finds {there} CUDA device(s). Use "
            f"--nproc-per-node {there}, or --device cpu."
        )
    own = torch.device("cuda", local_rank())
    torch.cuda.set_device(own)
    return own
