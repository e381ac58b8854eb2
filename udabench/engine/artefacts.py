"""What ``prepare`` has written: ``artefacts/<stage>/<iteration>/<artefact>/``, one file a sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from udabench.engine.files import remove_folder, replacing
from udabench.errors import DataError, PluginError, UsageError
from udabench.method import Stage

PICTURE, TENSOR, TABLE = ".png", ".safetensors", ".table.safetensors"


def checked(name: str) -> str:
    """A name that stays inside its folder. Raises UsageError on ``../x``, ``/x`` and the like."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or any(c in name for c in "\\\0") or ".." in path.parts:
        raise UsageError(f"'{name}' cannot name an artefact: it would leave the run folder. Use a plain name.")
    return name


def write_value(folder: Path, name: str, value: Tensor) -> None:
    """Ids 0..255 (H W) and pictures (3 H W in [0, 1]) as PNG, anything else as safetensors. Raises DiskFull."""
    value = value.detach().cpu()
    pixels = _pixels(value)
    suffix, other = (TENSOR, PICTURE) if pixels is None else (PICTURE, TENSOR)
    with replacing(folder / f"{checked(name)}{suffix}") as path:
        if pixels is None:
            save_file({"value": value.clone().contiguous()}, path)
        else:
            Image.fromarray(pixels).save(path, compress_level=1)
    (folder / f"{name}{other}").unlink(missing_ok=True)


def read_value(folder: Path, name: str) -> Tensor:
    """H W int64 or 3 H W float in [0, 1] from a PNG, else what was written. Raises DataError."""
    path = find_value(folder, name)
    if path is None:
        raise DataError(f"The artefact {folder / name} is missing: the stage's prepare has not written it.")
    try:
        if path.suffix == TENSOR:
            return load_file(path)["value"]
        with Image.open(path) as picture:
            pixels = torch.from_numpy(np.array(picture))
    except (OSError, SyntaxError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(
            f"The artefact {path} cannot be read ({error}). Remove it and resume: it is made again."
        ) from error
    return pixels.long() if pixels.dim() == 2 else pixels.permute(2, 0, 1).float().div_(255)


def find_value(folder: Path, name: str) -> Path | None:
    """The file that holds a value, if there is one."""
    candidates = (folder / f"{checked(name)}{suffix}" for suffix in (PICTURE, TENSOR))
    return next((path for path in candidates if path.exists()), None)


def write_table(folder: Path, name: str, values: Mapping[str, Tensor]) -> None:
    """Raises DiskFull."""
    with replacing(folder / f"{checked(name)}{TABLE}") as path:
        save_file({key: value.detach().to("cpu", copy=True).contiguous() for key, value in values.items()}, path)


def read_table(folder: Path, name: str) -> dict[str, Tensor] | None:
    """None while there is nothing. Raises DataError."""
    path = folder / f"{checked(name)}{TABLE}"
    if not path.exists():
        return None
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"The artefact {path} cannot be read ({error}). Remove it and resume.") from error


@dataclass(frozen=True)
class ArtefactReader:
    """Reads one artefact in one version; picklable, so that loader processes can have it."""

    folder: Path

    def read(self, name: str) -> Tensor:
        """Raises DataError that names the file."""
        return read_value(self.folder, name)

    def check(self, names: Collection[str]) -> None:
        """Raises DataError where it lacks some of these images, or holds files of others."""
        found = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
        known = {f"{name}{suffix}" for name in names for suffix in (PICTURE, TENSOR)}
        missing = [name for name in names if f"{name}{PICTURE}" not in found and f"{name}{TENSOR}" not in found]
        if missing:
            raise DataError(
                f"The artefact {self.folder} lacks {len(missing)} of {len(names)} images: {_some(missing)}. Put them "
                "back; they cannot be made again, since what made them has been trained on. Or start the run anew."
            )
        foreign = sorted(name for name in found - known if not PurePosixPath(name).name.startswith("."))
        if foreign:
            raise DataError(
                f"The artefact {self.folder} holds {len(foreign)} files that belong to none of the {len(names)} "
                f"training images: {_some(foreign)}. Remove them, and see that the others are this run's."
            )


class Artefacts:
    """All versions of a run's artefacts.

    Args:
        root: the run folder's ``artefacts``.
        stages: in order; a version belongs to a place in the run.
    """

    def __init__(self, root: Path, stages: Sequence[Stage]) -> None:
        self.root = root
        self._starts: dict[str, int] = {}
        total = 0
        for stage in stages:
            self._starts[checked(stage.name)] = total
            total += stage.iterations
        self._order = list(self._starts)

    def version(self, stage: str, iteration: int) -> Path:
        """The folder of what was prepared at a stage's 0-based ``iteration``."""
        return self.root / stage / str(iteration)

    def reader(self, artefact: str, stage: str, version: int) -> ArtefactReader:
        """The reader of an artefact as it stands while ``version`` of ``stage`` is in force: this version's, else the
        latest before it, of an earlier stage too. Raises DataError when nobody has written it."""
        return ArtefactReader(self._latest(artefact, stage, version))

    def mined(self, stage: Stage, version: int) -> tuple[int, ...]:
        """The classes that the stage mines while ``version`` is in force; none where it does not mine.

        Raises:
            DataError: nobody has written the table.
            PluginError: it does not hold ``classes``.
        """
        if stage.mining is None:
            return ()
        path = self._latest(stage.mining.table + TABLE, stage.name, version)
        table = read_table(path.parent, stage.mining.table) or {}
        if "classes" not in table:
            raise PluginError(f"The table {path} is to hold 'classes', ids to be mined; it holds {', '.join(table)}.")
        return tuple(int(c) for c in table["classes"].flatten().tolist())

    def _latest(self, artefact: str, stage: str, version: int) -> Path:
        place = (self._order.index(stage), version)
        for known in reversed(self._versions()):
            path = self.version(self._order[known[0]], known[1]) / checked(artefact)
            if known <= place and path.exists():
                return path
        raise DataError(
            f"Stage '{stage}' reads the artefact '{artefact.removesuffix(TABLE)}', which no prepare has written up to "
            f"iteration {version}."
        )

    def readers(self, stage: Stage, version: int) -> dict[str, ArtefactReader]:
        """A reader for each of the stage's layers."""
        return {name: self.reader(artefact, stage.name, version) for name, (_, artefact) in stage.layers.items()}

    def forget_after(self, total: int) -> None:
        """Remove versions that lie after ``total`` steps of the run: a run that goes on from an older checkpoint makes
        its own."""
        for stage, iteration in self._versions():
            if self._starts[self._order[stage]] + iteration > total:
                remove_folder(self.version(self._order[stage], iteration))

    def _versions(self) -> list[tuple[int, int]]:
        return sorted(
            (index, int(path.name))
            for index, stage in enumerate(self._order)
            for path in (self.root / stage).glob("*")
            if path.name.isdecimal() and path.is_dir()
        )


def _some(names: Sequence[str], shown: int = 5) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _pixels(value: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    """What a PNG can hold, else None."""
    if value.dim() == 2 and not value.is_floating_point() and value.dtype != torch.bool:
        fits = value.numel() > 0 and int(value.min()) >= 0 and int(value.max()) <= 255
        return value.to(torch.uint8).numpy() if fits else None
    if value.dim() == 3 and value.shape[0] == 3 and value.is_floating_point():
        fits = value.numel() > 0 and float(value.min()) >= 0 and float(value.max()) <= 1
        return value.float().mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy() if fits else None
    return None
