"""Finds a data set's folder, and opens a split of it; where there is none, says how to get and name it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from udabench.dataset import Dataset
from udabench.errors import DataError, UsageError, unknown
from udabench.registry import Registry

VARIABLE = "UDABENCH_DATA"
"""Environment variable: the folder that holds one folder a data set."""


def open_dataset(
    registry: Registry,
    name: str,
    split: str,
    roots: Mapping[str, Path] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """A split of a data set, found on disk.

    Args:
        name: as registered.
        roots: data set name (or its folder's name) -> folder, from the configuration.
        options: keywords of the data set's constructor.

    Raises:
        UsageError: unknown name, split or option, or no folder is known.
        DataError: the named folder does not exist.
    """
    dataset: type[Dataset] = registry.datasets.get(name)
    options = dict(options or {})
    check_split(name, dataset, split)
    check_options(name, dataset, options)
    return dataset(find_root(name, dataset, roots or {}), split, **options)


def find_root(name: str, dataset: type[Dataset], roots: Mapping[str, Path]) -> Path | None:
    """The folder of a data set; None for data that is generated.

    Raises:
        UsageError: nothing names a folder.
        DataError: the folder that is named does not exist.
    """
    if not dataset.needs_root:
        return None
    root, origin = where(name, dataset, roots)
    if root is None:
        raise UsageError(f"The folder of data set '{name}' is not known.\n{advice(name, dataset)}")
    if not root.is_dir():
        raise DataError(f"There is no folder {root} ({origin}).\n{advice(name, dataset)}")
    return root


def where(name: str, dataset: type[Dataset], roots: Mapping[str, Path]) -> tuple[Path | None, str]:
    """The folder that would be looked for, whether it is there or not, and what names it."""
    folder = dataset.folder or name
    for key in (name, folder):
        if key in roots:
            return Path(roots[key]).expanduser().absolute(), f"data.{key}"
    base = os.environ.get(VARIABLE)
    return (Path(base).expanduser().absolute() / folder, VARIABLE) if base else (None, "")


def advice(name: str, dataset: type[Dataset]) -> str:
    """Layout, source, and the two ways to name a folder."""
    folder = dataset.folder or name
    return (
        f"Expected layout of the folder '{folder}':\n{dataset.layout.rstrip()}\n"
        f"How to get it: {dataset.obtain.strip()}\n"
        f"Name the folder in one of two ways:\n"
        f"  export {VARIABLE}=/path/to/data        (the folder that holds '{folder}')\n"
        f"  --set data.{name}=/path/to/{folder}     (or 'data: {{{name}: /path/to/{folder}}}' in your config file)"
    )


def check_split(name: str, dataset: type[Dataset], split: str) -> None:
    """Raises UsageError for a split that the data set does not have."""
    if split not in dataset.splits:
        raise unknown(f"split of {name}", split, dataset.splits)


def check_options(name: str, dataset: type[Dataset], options: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that the data set's constructor does not take."""
    parameters = inspect.signature(dataset).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.name not in ("root", "split")]
    for option in options:
        if option not in known:
            raise unknown(f"option of data set {name}:", option, known)
