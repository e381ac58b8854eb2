"""Which device to run on."""

from __future__ import annotations

import torch

from udabench.errors import UsageError


def choose_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``. Raises UsageError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    return device
