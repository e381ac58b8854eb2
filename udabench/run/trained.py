"""A trained run, opened from its folder or from one of its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from udabench.device import choose_device
from udabench.engine.checkpoint import Checkpoints
from udabench.engine.folder import RunFolder
from udabench.engine.train import load_trained as load_weights
from udabench.errors import UsageError
from udabench.method import Method
from udabench.plugins import load_registry
from udabench.run.plan import Plan, plan_from_values
from udabench.run.setup import bare_method


@dataclass(frozen=True)
class Trained:
    """A method with its trained weights, in evaluation mode.

    Attributes:
        folder: the run folder.
        iteration: of the checkpoint.
    """

    plan: Plan
    method: Method
    folder: Path
    iteration: int
    device: torch.device


def stored_plan(folder: RunFolder, plugins: Sequence[Path] = ()) -> Plan:
    """The plan that a run folder was made from.

    Raises:
        UsageError: the folder is no run folder.
        PluginError: one of its plugins cannot be loaded any more.
    """
    stored = folder.read_run()
    if not isinstance(stored.get("config"), dict) or not isinstance(stored.get("origins"), dict):
        raise UsageError(f"{folder.path} is no run folder: it has no run.json with a configuration.")
    files = [*(Path(file) for file in stored.get("plugins", [])), *(path.resolve() for path in plugins)]
    files = list(dict.fromkeys(files))
    return plan_from_values(load_registry(files), stored["config"], stored["origins"], files)


def _last(folder: RunFolder) -> Path | None:
    """The last checkpoint; None where there is none."""
    last = Checkpoints(folder.checkpoints).last()
    return None if last is None else last.path


def run_folder_of(path: Path) -> Path:
    """The run folder of a checkpoint, or the run folder itself. Raises UsageError when there is none of them."""
    if not path.is_dir():
        raise UsageError(f"There is no run folder or checkpoint {path}.")
    return path.resolve().parents[1] if path.resolve().parent.name == "checkpoints" else path


def load_trained(path: Path, device: str = "auto", plugins: Sequence[Path] = ()) -> Trained:
    """Open a run folder (its last checkpoint) or a checkpoint's folder.

    Raises:
        UsageError: there is no such run.
        CheckpointError: there is no sound checkpoint, or it belongs to another network.
    """
    chosen = choose_device(device)
    run = run_folder_of(path)
    folder = RunFolder(run)
    plan = stored_plan(folder, plugins)
    # The initial weights would be overwritten at once: nothing is downloaded or read for them.
    method = bare_method(plan)
    checkpoint = load_weights(method, plan.config, folder, chosen, path if run is not path else _last(folder))
    method.eval()
    return Trained(plan, method, run, int(checkpoint.path.name), chosen)
