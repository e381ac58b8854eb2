"""The conformance kit of a data set."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from udabench.config import DataConfig
from udabench.data.batches import BatchFunction
from udabench.data.build import Builder
from udabench.data.locate import find_root, open_dataset, where
from udabench.dataset import Dataset
from udabench.engine.artefacts import checked
from udabench.labels import IGNORE, LabelSpace
from udabench.method import Batch, Event, Stage
from udabench.registry import Registry
from udabench.size import Size
from udabench.testing.fingerprint import fingerprint, sample_names
from udabench.testing.result import Broken, Check, CheckResult, Skip, run_checks
from udabench.testing.setup import fake_registry
from udabench.testing.subject import local_files

CROP = Size(64, 64)


@dataclass(frozen=True)
class DatasetSubject:
    """A data set under test."""

    name: str
    registry: Registry
    roots: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def kind(self) -> type[Dataset]:
        found: type[Dataset] = self.registry.datasets.get(self.name)
        return found

    def open(self, split: str) -> Dataset:
        """Raises UserError."""
        return open_dataset(self.registry, self.name, split, self.roots, self.options)

    def opened(self) -> Iterator[Dataset]:
        """Every split."""
        return (self.open(split) for split in self.kind.splits)


def check_dataset(
    name: str,
    registry: Registry | None = None,
    roots: Mapping[str, Path] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[CheckResult]:
    """Run the conformance kit on a data set; without its files only what it declares is checked.

    Args:
        name: as registered.
        registry: None: the installed plugins and the fakes.
        roots: data set name -> folder; else ``UDABENCH_DATA`` is asked.
        options: keywords of the data set's constructor.

    Raises:
        UsageError: an unknown name.
    """
    return list(dataset_checks(name, registry, roots, options))


def dataset_checks(
    name: str,
    registry: Registry | None = None,
    roots: Mapping[str, Path] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[CheckResult]:
    """The results of :func:`check_dataset` as they come."""
    subject = DatasetSubject(name, registry or fake_registry(), roots or {}, options or {})
    subject.registry.datasets.describe(name)
    yield from run_checks(CHECKS, subject)


def check_declares(subject: DatasetSubject) -> str:
    """Class attributes are there and fit each other."""
    kind = subject.kind
    if not (isinstance(kind, type) and issubclass(kind, Dataset)):
        raise Broken(f"{kind!r} is registered as a data set but is no subclass of udabench.Dataset.")
    missing = [name for name in ("label_space", "id_map", "train_size") if not hasattr(kind, name)]
    if missing:
        raise Broken(f"{kind.__name__} lacks the class attribute {missing[0]}.")
    if not isinstance(kind.label_space, LabelSpace) or not isinstance(kind.train_size, Size) or not kind.splits:
        raise Broken("label_space must be a LabelSpace, train_size a Size(height, width), splits a tuple of names.")
    wrong = sorted({train for train in kind.id_map.values() if train != IGNORE} - set(range(len(kind.label_space))))
    if wrong:
        raise Broken(f"id_map leads to {wrong[0]}, which is neither an id of {kind.label_space.name} nor 255.")
    if kind.present is not None and not set(kind.present) <= set(range(len(kind.label_space))):
        raise Broken(f"present names ids that {kind.label_space.name} does not have.")
    if kind.needs_root and not (kind.layout.strip() and kind.obtain.strip()):
        raise Broken("State 'layout' and 'obtain': they are printed to a user whose folder is missing.")
    return f"{kind.label_space.name}, {', '.join(kind.splits)}"


def check_names(subject: DatasetSubject) -> str:
    """Every split lists its samples: unique, in a fixed order, usable as file names."""
    _skip_without_files(subject)
    counts = []
    for dataset in subject.opened():
        names = dataset.names
        if not names:
            raise Broken(f"Split '{dataset.split}' is empty. Raise DataError where the folder is not as expected.")
        if len(set(names)) < len(names):
            raise Broken(f"Split '{dataset.split}' lists a name twice. Predictions are written under it: add a folder.")
        for name in names:
            checked(name)
        if tuple(subject.open(dataset.split).list_names()) != names:
            raise Broken(f"Split '{dataset.split}' lists its samples in another order the second time. Sort them.")
        counts.append(f"{dataset.split} {len(names)}")
    return ", ".join(counts)


def check_samples(subject: DatasetSubject) -> str:
    """Images and labels have the right form and belong together."""
    _skip_without_files(subject)
    for dataset in subject.opened():
        for name in sample_names(dataset):
            _check_sample(dataset, name)
    return "first, middle and last of each split"


def _check_sample(dataset: Dataset, name: str) -> None:
    image = dataset.read_image(name)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise Broken(f"The image '{name}' is {image.shape} {image.dtype}, not H W 3 uint8 (RGB).")
    if not dataset.has_label(name):
        return
    label = dataset.read_label(name)
    if label.shape != image.shape[:2]:
        raise Broken(f"The label of '{name}' is {label.shape}, its image {image.shape[:2]}.")
    strange = set(np.unique(label).tolist()) - set(range(len(dataset.label_space))) - {IGNORE}
    if strange:
        raise Broken(f"read_label of '{name}' gives {min(strange)}, which {dataset.label_space.name} does not have.")


def check_elsewhere(subject: DatasetSubject) -> str:
    """Another interpreter, with another hash seed, reads the same."""
    _skip_without_files(subject)
    here = [fingerprint(dataset) for dataset in subject.opened()]
    arguments = {
        "name": subject.name,
        "splits": subject.kind.splits,
        "plugins": [str(path) for path in local_files(subject.registry)],
        "roots": {name: str(root) for name, root in subject.roots.items()},
        "options": dict(subject.options),
    }
    process = subprocess.run(
        [sys.executable, "-c", "from udabench.testing.fingerprint import main; main()"],
        input=json.dumps(arguments),
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise Broken("Reading in another process failed:\n" + "\n".join(process.stderr.splitlines()[-8:]))
    if process.stdout.split() != here:
        raise Broken(
            "Another process reads other samples. Sort what is listed; derive random numbers from the sample's name or "
            "index alone, never from hash(), a global generator or the clock."
        )
    return "identical names, images and labels"


def check_batches(subject: DatasetSubject) -> str:
    """A batch is cut from it, also by a pickled copy, as loader processes get it."""
    _skip_without_files(subject)
    dataset = subject.open(subject.kind.splits[0])
    size = subject.kind.train_size
    crop = Size(min(CROP.height, size.height), min(CROP.width, size.width))
    config = DataConfig(source_size=size, crop=crop, source_batch=1, crop_max_ratio=1.0)
    builder = Builder(0, config, dataset.label_space, dataset, None)
    function = builder.stage(Stage("check", 1, _no_step, {}, domains=("source",)))
    try:
        copied: BatchFunction = pickle.loads(pickle.dumps(function))
    except Exception as error:
        raise Broken(
            f"It cannot be pickled, as loader processes need: {error}. Keep no open files or lambdas."
        ) from None
    if not _same(function(0), copied(0)):
        raise Broken("A pickled copy gives another batch. Keep nothing that a copy does not carry along.")
    return f"crops of {crop}"


def _same(first: Batch, second: Batch) -> bool:
    mine, theirs = first.source, second.source
    if mine is None or theirs is None or mine.label is None or theirs.label is None:
        return False
    return torch.equal(mine.image, theirs.image) and torch.equal(mine.label, theirs.label)


def _no_step(batch: Batch, iteration: int, rng: torch.Generator) -> Generator[Event, None, None]:
    yield from ()


def _skip_without_files(subject: DatasetSubject) -> None:
    if subject.kind.needs_root and where(subject.name, subject.kind, subject.roots)[0] is None:
        raise Skip(f"its folder is not known: --set data.{subject.name}=DIR, or UDABENCH_DATA")
    find_root(subject.name, subject.kind, subject.roots)


CHECKS: tuple[Check[DatasetSubject], ...] = (
    Check("declares", check_declares),
    Check("names", check_names, ("declares",)),
    Check("samples", check_samples, ("names",)),
    Check("elsewhere", check_elsewhere, ("samples",)),
    Check("batches", check_batches, ("samples",)),
)
