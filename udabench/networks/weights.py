"""Initial weights: find the file, read it without running code from it, and refuse what does not cover the network."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from udabench.errors import CheckpointError, unknown
from udabench.network import WeightsReport

THRESHOLD = 1.0
"""Least share of a network's own values that a file must give. All of them: a ResNet-101 read from a file of another
lineage lacks nothing but its stem, 1% of its values, and would start from a random one."""
FOLDER = "UDABENCH_WEIGHTS"
"""Environment variable: a folder that is searched for published files before torch.hub's cache."""
NONE = "none"
RANDOM = "none (random)"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_WRAPPERS = ("state_dict", "ResNet101", "model_state", "model")
_SHOWN = 5

State = dict[str, Tensor]


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        url: where it is downloaded from.
        name: its name in ``$UDABENCH_WEIGHTS`` and in torch.hub's cache; empty: the last part of the URL.
        sha256: first digits of the file's SHA-256; empty: not checked.
        note: what a person who has to fetch it should know.
        without: what can be done without it.
        by_hand: the URL is a page that leads to it, and a person has to fetch it.
    """

    url: str
    name: str = ""
    sha256: str = ""
    note: str = ""
    without: str = "set network.weights to none for random weights"
    by_hand: bool = False

    @property
    def file(self) -> str:
        return self.name or self.url.rpartition("/")[2]

    def path(self) -> Path:
        """Where the file is, or where it would be downloaded to."""
        places = [Path(torch.hub.get_dir()) / "checkpoints" / self.file]
        if os.environ.get(FOLDER):
            places.insert(0, Path(os.environ[FOLDER]).expanduser() / self.file)
        return next((place for place in places if place.is_file()), places[-1])

    def fetch(self) -> Path:
        """The local file, downloaded if need be. Raises CheckpointError where that fails."""
        path = self.path()
        if path.is_file():
            return path
        try:
            if self.by_hand:
                raise OSError("no program may fetch it")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(self.url, str(path), self.sha256 or None, progress=False)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"Weights {self.file} are not on this machine and cannot be downloaded ({error}). Fetch {self.url} "
                f"and put it at {path}, or into a folder that the environment variable {FOLDER} names, "
                f"as {self.file}; or {self.without}. {self.note}".rstrip()
            ) from error
        return path


def find(weights: str, published: Mapping[str, Published]) -> Path | None:
    """The local path that ``weights`` (a published name or a file) is read from, whether it is there or not.

    None for ``none``. Raises UsageError where it is neither.
    """
    if weights == NONE:
        return None
    if weights in published:
        return published[weights].path()
    if is_file_name(weights):
        return Path(weights).expanduser()
    raise unknown("weights", weights, [*published, NONE, "a file"])


def obtain(weights: str, published: Mapping[str, Published]) -> Path:
    """Like :func:`find`, but the file is there afterwards. Raises CheckpointError."""
    if weights in published:
        return published[weights].fetch()
    path = find(weights, published)
    if path is None or not path.is_file():
        raise CheckpointError(f"There is no weight file {path}. Give a file that exists, a published name, or none.")
    return path


def load_weights(
    module: nn.Module,
    weights: str,
    published: Mapping[str, Published],
    names: Callable[[State], State] = dict,
) -> WeightsReport:
    """Find, read, rename and load: what most backbones' ``load_weights`` is.

    Args:
        module: what receives the values.
        weights: a published name or a file.
        published: the names that the backbone knows.
        names: published names of values -> the module's.
    """
    path = obtain(weights, published)
    digest = file_digest(path)
    expected = published[weights].sha256 if weights in published else ""
    if not digest.startswith(expected):
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is {digest}, not {expected}... Delete it and fetch it again."
        )
    return load_state(module, names(read_state(path)), source=path.name, digest=digest)


def load_network(network: nn.Module, path: Path, names: Callable[[State], State] = dict) -> WeightsReport:
    """Load a whole network's checkpoint, for instance with a map out of :data:`udabench.networks.keymaps.KEYMAPS`.

    Raises:
        CheckpointError: the file cannot be read or does not cover the network.
    """
    return load_state(network, names(read_state(path)), source=path.name, digest=file_digest(path))


def is_file_name(weights: str) -> bool:
    """Whether ``weights`` names a file rather than published weights."""
    return weights.endswith(_SUFFIXES) or "/" in weights or os.sep in weights


def read_state(path: Path) -> State:
    """The tensors of a ``.safetensors`` or PyTorch file, out of their usual wrappings. No code in it is ever run.

    Raises:
        CheckpointError: the file is missing, damaged, holds no tensors, or holds pickled code.
    """
    try:
        _check_form(path)
        loaded = load_file(path) if path.suffix == ".safetensors" else _read_torch(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds pickled objects other than tensors ({_refused(error)}), which are not loaded because they "
            "could run code. Convert it to safetensors, or save its state dict alone; if you trust the file: "
            'python -c "import torch; '
            f"torch.save(torch.load('{path}', map_location='cpu', weights_only=False)['state_dict'], 'weights.pth')\""
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"Cannot read the weight file {path}: {error}. Fetch it again.") from error
    state = unwrap(loaded)
    if not state:
        raise CheckpointError(f"{path} holds no named tensors. Give a state dict.")
    return state


def _refused(error: pickle.UnpicklingError) -> str:
    """The object that torch names in its refusal."""
    found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    return found[1] if found else "damaged, or of another format"


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_form(path: Path) -> None:
    """Raises CheckpointError for what no program has written as weights: a page, a text."""
    with path.open("rb") as file:
        begin = file.read(2)
    if path.suffix != ".safetensors" and not begin.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path} is no weight file: it is neither an archive nor a pickle. Fetch it again.")


def unwrap(loaded: Any) -> State:
    """The state dict inside ``{"state_dict": ...}`` or ``{"model": ...}``, without DataParallel's ``module.``."""
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    tensors = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    return strip_prefix(tensors, "module.") if all(k.startswith("module.") for k in tensors) else tensors


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> State:
    """The entries under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def own_values(module: nn.Module) -> State:
    """Parameters and buffers that weights give; batch counters are left out (old files lack them)."""
    return {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def random_report(module: nn.Module) -> WeightsReport:
    """The report of a module that keeps its random weights."""
    return WeightsReport(RANDOM, 0, tuple(own_values(module)), ())


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str, *, digest: str = "", threshold: float = THRESHOLD
) -> WeightsReport:
    """Copy what fits by name and shape into ``module``.

    Raises:
        CheckpointError: less than ``threshold`` of the module's values is covered (the module is left as it was), or
            a value is not finite.
    """
    own = own_values(module)
    fitting = {name: state[name] for name, value in own.items() if name in state and state[name].shape == value.shape}
    missing = tuple(name for name in own if name not in fitting)
    unexpected = tuple(k for k in state if k not in own and not k.endswith("num_batches_tracked"))
    report = WeightsReport(source, len(fitting), missing, unexpected, digest)
    if report.coverage < threshold:
        raise CheckpointError(_uncovered(report, own, state, threshold))
    broken = [name for name, value in fitting.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(f"Weights {source} hold values that are not finite: {_some(broken)}. Fetch them again.")
    module.load_state_dict(fitting, strict=False)
    return report


def _uncovered(report: WeightsReport, own: State, state: Mapping[str, Tensor], threshold: float) -> str:
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in report.missing
        if name in state
    ]
    lines = [
        f"Weights {report.source} cover {report.coverage:.1%} of the network's {len(own)} values; at least "
        f"{threshold:.0%} are needed. Missing: {_some(report.missing)}.",
        f"Other shapes: {_some(shapes)}." if shapes else "",
        f"In the file but not in the network: {_some(report.unexpected)}." if report.unexpected else "",
        "Choose weights that belong to this network (for a ResNet also its lineage), or network.weights none.",
    ]
    return " ".join(line for line in lines if line)


def _some(names: list[str] | tuple[str, ...]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
