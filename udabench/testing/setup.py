"""What a method is built from and fed with, in small: a registry, a configuration, a batch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from udabench.config import MethodConfig, RunConfig
from udabench.hookspecs import PROJECT
from udabench.labels import CITYSCAPES19, LabelSpace
from udabench.method import Batch, Context, Samples
from udabench.plugins import load_registry
from udabench.registry import Registry
from udabench.resolve import Layer, resolve
from udabench.run.setup import Initial, RunSetup
from udabench.size import Size
from udabench.task import Task
from udabench.testing import dataset

FAKES = Path(__file__).resolve().with_name("udabench_fakes.py")
"""The plugin file of the fakes, for ``--plugin``."""
CROP = Size(height=32, width=32)
SMALL: Mapping[str, Any] = {
    "iterations": 8,
    "network.name": "fake",
    "network.weights": "none",
    "network.options": {},
    "data.source_size": dataset.SIZE,
    "data.target_size": dataset.SIZE,
    "data.crop": CROP,
    "data.source_batch": 2,
    "data.target_batch": 2,
    "data.crop_max_ratio": 1.0,
    "data.rcs_min_pixels": 0,
    "data.workers": 0,
    "optim.lr": 1e-3,
    "optim.warmup": 0,
    "evaluate.size": None,
    "engine.threads": 1,
    "engine.log_every": 1,
    "engine.panel_every": 4,
    "engine.checkpoint_every": 3,
    "engine.device": "cpu",
}
"""The values that make a run small, by dotted key."""


def fake_registry(*plugins: Path | ModuleType) -> Registry:
    """The installed plugins, the fakes (``fake-source``, ``fake-target``, network ``fake``), and ``plugins``.

    Args:
        plugins: files, package folders or imported modules; one that is installed as well is not loaded twice.

    Raises:
        PluginError: one of ``plugins`` cannot be loaded.
    """
    installed = {point.module for point in entry_points(group=PROJECT)}
    paths = [_path(plugin) for plugin in plugins]
    local = [path for path in paths if module_name(path) not in installed and path != FAKES]
    return load_registry([*local, FAKES])


def module_name(plugin: Path) -> str:
    """The name under which a plugin's file or folder is imported."""
    return plugin.name if plugin.is_dir() else plugin.stem


def plugin_name(plugin: Path) -> str:
    """The origin under which a registry of :func:`fake_registry` lists what a plugin's file or folder registered."""
    points = {point.module: point.name for point in entry_points(group=PROJECT)}
    return points.get(module_name(plugin), module_name(plugin))


def _path(plugin: Path | ModuleType) -> Path:
    if isinstance(plugin, Path):
        return plugin.resolve()
    file = Path(str(plugin.__file__)).resolve()
    return file.parent if file.name == "__init__.py" else file


def fake_config(
    method: type[MethodConfig] = MethodConfig, overrides: Mapping[str, Any] | None = None, name: str = "fake-method"
) -> RunConfig:
    """The configuration of a small run on the fakes. ``overrides``: full or short keys."""
    names = {"method": name, "source": dataset.SOURCE, "target": dataset.TARGET}
    layers = [Layer("fakes", {**names, **SMALL}), Layer("test", overrides or {})]
    return resolve(method, layers).config


def fake_setup(
    registry: Registry | None = None,
    classes: LabelSpace = CITYSCAPES19,
    overrides: Mapping[str, Any] | None = None,
    initial: Initial | None = None,
    bare: bool = False,
) -> RunSetup:
    """The setup that a method's constructor takes, with the fake network; no file is read.

    Args:
        registry: None: :func:`fake_registry` without further plugins.
        classes: the task's outputs.
        overrides: full or short keys of the configuration, such as ``{"iterations": 4}``.
        initial, bare: see :class:`udabench.run.setup.RunSetup`.
    """
    task = Task(dataset.SOURCE, dataset.TARGET, classes, classes.averages)
    return RunSetup(registry or fake_registry(), fake_config(overrides=overrides), task, initial, bare)


def fake_batch(
    classes: int = 19,
    *,
    size: Size = CROP,
    images: int = 2,
    target_labels: bool = False,
    context: Size | None = None,
    seed: int = 0,
) -> Batch:
    """A batch of both domains as a step gets it: blocks of classes, each of its own brightness, with noise."""
    return Batch(
        _samples(classes, size, images, context, seed, labelled=True),
        _samples(classes, size, images, context, seed + 1, labelled=target_labels),
    )


def _samples(classes: int, size: Size, images: int, context: Size | None, seed: int, labelled: bool) -> Samples:
    rng = torch.Generator().manual_seed(seed)
    outer = context or size
    coarse = torch.randint(classes, (images, -(-outer.height // 8), -(-outer.width // 8)), generator=rng)
    label = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, : outer.height, : outer.width]
    noise = torch.rand(images, 3, *outer, generator=rng)
    image = (0.8 * label[:, None] / classes + 0.2 * noise).clamp(0, 1)
    label = label.masked_fill(torch.rand(label.shape, generator=rng) < 0.01, 255)
    top, left = (outer.height - size.height) // 2, (outer.width - size.width) // 2
    inside = (slice(None), slice(top, top + size.height), slice(left, left + size.width))
    corner = torch.full((images,), top), torch.full((images,), left)
    return Samples(
        image=image[:, :, inside[1], inside[2]].contiguous(),
        label=label[inside].contiguous() if labelled else None,
        names=tuple(f"fake_{index:03d}" for index in range(images)),
        valid=None,
        box=torch.tensor([[top, left, *size]] * images),
        size=outer,
        flipped=torch.zeros(images, dtype=torch.bool),
        layers={},
        context=Context(image, *corner) if context else None,
    )
