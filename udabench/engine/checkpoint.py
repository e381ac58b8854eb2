"""Checkpoints: safetensors and JSON, written whole or not at all, checked when they are read. Nothing is unpickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from udabench.engine.files import link_or_copy, remove_folder, replacing_folder, sweep
from udabench.errors import CheckpointError, PluginError

MODEL = "model.safetensors"
OPTIMIZERS = "optimizer.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose digests were right when it was opened.

    Attributes:
        path: its folder.
        state: the counters.
        files: name -> SHA-256.
    """

    path: Path
    state: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def weights(self) -> str:
        """SHA-256 of the method's state."""
        return self.files[MODEL]

    def model(self) -> dict[str, Tensor]:
        """The method's state, on the CPU."""
        return load_file(self.path / MODEL)

    def optimizers(self) -> dict[str, Tensor]:
        """The optimisers' state, on the CPU; nothing at the end of a stage that was kept for later runs."""
        return load_file(self.path / OPTIMIZERS) if OPTIMIZERS in self.files else {}


def open_checkpoint(path: Path) -> Checkpoint:
    """Raises CheckpointError when a file is missing or is not what was written."""
    try:
        stored = json.loads((path / STATE).read_text(encoding="utf-8"))
        digest, state, files = stored["digest"], stored["state"], stored["files"]
        sound = digest == _digest(state, files) and all(_file_digest(path / name) == files[name] for name in files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read: {error!r}.") from error
    if not sound:
        raise CheckpointError(f"The checkpoint {path} is damaged: its contents do not match their SHA-256.")
    return Checkpoint(path, state, files)


def write_checkpoint(
    path: Path, state: Mapping[str, Any], model: nn.Module, optimizers: Mapping[str, Tensor], kept: str = ""
) -> None:
    """Raises DiskFull (``kept`` says what is safe), PluginError when a method keeps state that is no tensor."""
    with replacing_folder(path, kept) as folder:
        _save(state_of(model), folder / MODEL)
        _save(optimizers, folder / OPTIMIZERS)
        _seal(folder, state, {name: _file_digest(folder / name) for name in (MODEL, OPTIMIZERS)})


def adopt_checkpoint(path: Path, found: Checkpoint, state: Mapping[str, Any]) -> None:
    """Write a checkpoint of another's weights, without optimisers. Raises DiskFull."""
    with replacing_folder(path) as folder:
        link_or_copy(found.path / MODEL, folder / MODEL)
        _seal(folder, state, {MODEL: found.weights})


def _seal(folder: Path, state: Mapping[str, Any], files: Mapping[str, str]) -> None:
    stored = {"digest": _digest(state, files), "files": files, "state": state}
    (folder / STATE).write_text(json.dumps(stored, indent=2, allow_nan=False), encoding="utf-8")


class Checkpoints:
    """The ``checkpoints`` folder of a run: one folder each, named by the iteration.

    Args:
        folder: where they lie.
        keep: so many of the last are kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def iterations(self) -> list[int]:
        """Iterations with a checkpoint, rising; whether they are sound shows when they are opened."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal() and p.is_dir())

    def write(
        self, iteration: int, state: Mapping[str, Any], model: nn.Module, optimizers: Mapping[str, Tensor]
    ) -> None:
        """Write one, then remove those that are too old. Raises DiskFull; those before are intact."""
        before = [number for number in self.iterations() if number != iteration]
        kept = f"The checkpoint of iteration {before[-1]} is intact." if before else "There is no checkpoint yet."
        write_checkpoint(self.folder / str(iteration), state, model, optimizers, kept)
        self.thin()

    def thin(self) -> None:
        """Remove those that are too old."""
        for number in self.iterations()[: -self.keep]:
            remove_folder(self.folder / str(number))

    def last(self) -> Checkpoint | None:
        """The last one, which no older one may stand in for. Raises CheckpointError when it is damaged."""
        known = self.iterations()
        if not known:
            return None
        try:
            return open_checkpoint(self.folder / str(known[-1]))
        except CheckpointError as error:
            older = f" To take an older one, name it: {self.folder / str(known[-2])}" if len(known) > 1 else ""
            raise CheckpointError(f"{error}{older}") from error

    def latest(self, say: Callable[[str], None] | None = None) -> Checkpoint | None:
        """The last sound one; None when there is none at all. Reads only.

        Args:
            say: told of each damaged one that is passed over.

        Raises:
            CheckpointError: there are some, and all are damaged.
        """
        problems = []
        for number in reversed(self.iterations()):
            try:
                return open_checkpoint(self.folder / str(number))
            except CheckpointError as error:
                problems.append(str(error))
                if say is not None:
                    say(f"{error} Falling back to the one before.")
        if problems:
            raise CheckpointError(
                f"No checkpoint in {self.folder} can be used. {' '.join(problems)} Start the run anew."
            )
        return None

    def tidy(self, last: int) -> None:
        """Before a run goes on from iteration ``last``: remove what kills left, set later (damaged) ones aside."""
        if not self.folder.is_dir():
            return
        sweep(self.folder)
        for number in self.iterations():
            if number > last:
                aside = self.folder / f"damaged-{number}"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / str(number)).rename(aside)
        self.thin()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A module's state on the CPU, each tensor of its own. Raises PluginError on state that is no tensor."""
    state = {}
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise PluginError(
                f"The method's state '{key}' is a {type(value).__name__}; only tensors can be stored. "
                "Keep it in a registered buffer."
            )
        state[key] = value
    return state


def load_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's values into a module. Raises CheckpointError that names the keys and shapes that differ."""
    stored, own = checkpoint.model(), model.state_dict()
    problems = [
        *(f"missing {key} {tuple(own[key].shape)}" for key in own if key not in stored),
        *(f"unexpected {key} {tuple(stored[key].shape)}" for key in stored if key not in own),
        *(
            f"{key} has {tuple(stored[key].shape)}, the network {tuple(own[key].shape)}"
            for key in own
            if key in stored and stored[key].shape != own[key].shape
        ),
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} belongs to another network: {'; '.join(problems[:5])}{more}. "
            "Build the method with the configuration of its run."
        )
    model.load_state_dict(stored)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    # safetensors refuses tensors that share memory (tied weights) and layouts other than contiguous.
    save_file({key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}, path)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _digest(state: Mapping[str, Any], files: Mapping[str, str]) -> str:
    return sha256(json.dumps([state, files], sort_keys=True).encode()).hexdigest()
