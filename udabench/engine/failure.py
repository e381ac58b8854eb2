"""What is kept of a training that went to NaN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from udabench.engine.checkpoint import write_checkpoint
from udabench.engine.files import write_json
from udabench.engine.finite import NotFinite
from udabench.errors import UserError
from udabench.method import Method
from udabench.world import leads


def save_failure(failure: NotFinite, folder: Path, stage: str, model: Method, state: Mapping[str, Any]) -> UserError:
    """Write ``failure.json`` and the weights, in a checkpoint's form, and return the error to raise.

    Raises DiskFull.
    """
    losses = {name: repr(value) for name, value in failure.values.items()}
    found = {
        "what": failure.what,
        "stage": stage,
        "iteration": failure.iteration,
        "losses": losses,
        "samples": list(failure.samples),
    }
    if leads():
        write_checkpoint(folder / "state", state, model, {})
        write_json(folder / "failure.json", found)
    listing = ", ".join(f"{name} = {value}" for name, value in losses.items()) or "no loss was read since"
    return UserError(
        f"The {failure.what} is not finite at iteration {failure.iteration} ({listing}; images: "
        f"{', '.join(failure.samples) or 'unknown'}). The batch's names and the weights lie in {folder}. "
        f"Lower optim.lr, use engine.precision = float32, or look at the images. {model.advice}".rstrip()
    )
