"""The method under test: its plan on the fakes, how it is built, its stages ready to be stepped."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from udabench.data.batches import BatchFunction, samples_to_device, to_device, whole_sample
from udabench.data.build import Builder
from udabench.data.locate import open_dataset
from udabench.engine.artefacts import Artefacts
from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.engine.passes import PassNotes, run_pass
from udabench.engine.referee import Referee
from udabench.engine.seeding import random_state_kept, seed_everything
from udabench.engine.workspace import RunWorkspace
from udabench.errors import PluginError, UsageError
from udabench.hookspecs import Entry
from udabench.method import Batch, Domain, Method, Samples, Stage
from udabench.registry import Registry
from udabench.run.plan import Plan, Request, make_plan
from udabench.run.setup import RunSetup, build_method
from udabench.testing import dataset
from udabench.testing.setup import CROP, FAKES, SMALL, fake_registry

NAME = "subject"
"""Under this name the method runs, so that an installed one and a class of a test go the same way."""
PRESET = "quick"
"""Every method has it, and it is the one for small images."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class OpenStage:
    """A stage of a built method with its optimisers and its batches."""

    stage: Stage
    optimizers: Optimizers
    function: BatchFunction
    device: torch.device

    def batch(self, iteration: int) -> Batch:
        """As the step gets it."""
        return to_device(self.function(iteration), self.device)


class Subject:
    """A method on the fakes.

    Args:
        method: a name of ``registry``, or a class of a module's top level (other interpreters must find it).
        registry: None: :func:`fake_registry`. Its local plugin files are loaded anew; it is not changed.
        folder: where data, runs and artefacts are written.
        overrides: full or short keys of the configuration, for methods that the fakes' values do not suit.
        preset: a row of the method; what makes a run small lies over it.
    """

    def __init__(
        self,
        method: str | type[Method],
        registry: Registry | None,
        folder: Path,
        overrides: Mapping[str, Any] | None = None,
        preset: str = PRESET,
    ) -> None:
        given = registry or fake_registry()
        self.method: type[Method] = given.methods.get(method) if isinstance(method, str) else method
        if not (isinstance(self.method, type) and issubclass(self.method, Method)):
            raise PluginError(f"{self.method!r} is registered as a method but is no subclass of udabench.Method.")
        self.files = local_files(given)
        if (folder / "data").exists():
            raise UsageError(f"{folder} holds the files of an earlier test. Remove it, or name another folder.")
        self.folder = folder
        self.overrides = dict(overrides or {})
        self.preset = preset
        self.registry = fake_registry(*self.files)
        self.registry.methods.add(NAME, Entry(self.method), "the method under test")
        self.data = dataset.write_fake_data(folder / "data")

    @cached_property
    def plan(self) -> Plan:
        """The resolved configuration. Raises UsageError."""
        roots = {f"data.roots.{name}": self.data / name for name in (dataset.SOURCE, dataset.TARGET)}
        return self._plan(Request(NAME, dataset.SOURCE, dataset.TARGET, self.preset, {**self.values, **roots}))

    def plan_of(self, preset: str) -> Plan:
        """The configuration of a preset as it stands. Raises UsageError."""
        return self._plan(Request(NAME, dataset.SOURCE, dataset.TARGET, preset, {"data.crop": CROP}))

    def _plan(self, request: Request) -> Plan:
        with without_user_config(self.folder):
            return make_plan(self.registry, request)

    @property
    def values(self) -> dict[str, Any]:
        """What is set beside the preset."""
        return {**SMALL, **self.overrides}

    def build(self, device: torch.device = CPU) -> Method:
        """A new method with its initial weights, the same each time."""
        seed_everything(self.plan.config.seed, "build")
        setup = RunSetup(self.registry, self.plan.config, self.plan.task)
        return build_method(self.plan.method, self.plan.config.settings, setup).to(device).train()

    def open(self, method: Method, device: torch.device = CPU) -> Iterator[OpenStage]:
        """Each stage that has steps, in order, started, prepared and with its layers, as in a run."""
        seed = self.plan.config.seed
        artefacts = Artefacts(self._new_folder(), method.stages())
        for index, stage in enumerate(method.stages()):
            if stage.start is not None:
                seed_everything(seed, stage.name, "start")
                stage.start()
                method.to(device).train()
                # Its networks may be new ones now.
                stage = method.stages()[index]
            if stage.prepare is not None:
                seed_everything(seed, stage.name, "prepare", 0)
                folder = artefacts.version(stage.name, 0)
                workspace = RunWorkspace(folder, self._images, device, (seed, stage.name, "prepare", 0))
                notes = PassNotes(device, Referee(len(self.plan.task.classes)))
                run_pass(method, stage, workspace, self.plan.config.engine, notes)
            if stage.iterations == 0:
                continue
            function = self._builder.stage(stage, artefacts.readers(stage, 0), artefacts.mined(stage, 0))
            yield OpenStage(stage, Optimizers(stage, make_scaler("float32", device)), function, device)

    def first(self, method: Method, device: torch.device = CPU) -> OpenStage:
        """The first stage."""
        return next(self.open(method, device))

    def whole(self, device: torch.device = CPU) -> Samples:
        """A whole target image, alone and unlabelled, as in an evaluation."""
        images = self._builder.images("target")
        return samples_to_device(whole_sample(images, images.names[0]), device)

    def _new_folder(self) -> Path:
        parent = self.folder / "artefacts"
        parent.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))

    def _images(self, domain: Domain, skip: Callable[[str], bool]) -> Iterable[Samples]:
        images = self._builder.images(domain)
        return (whole_sample(images, name) for name in images.names if not skip(name))

    @cached_property
    def _builder(self) -> Builder:
        config = self.plan.config
        source, target = (
            open_dataset(self.registry, name, "train", config.data.roots) for name in (config.source, config.target)
        )
        # The permission is the built method's: one around another may have taken it over.
        with random_state_kept(CPU):
            labels = self.build().target_labels
        return Builder(config.seed, config.data, self.plan.task.classes, source, target, labels)


def where_is(method: type[Method]) -> tuple[str, Path, str]:
    """Module, file and qualified name by which another interpreter finds a class. Raises PluginError."""
    if "<locals>" in method.__qualname__:
        raise PluginError(f"{method.__qualname__} is defined inside a function. Move it to the module's top level.")
    try:
        return method.__module__, Path(inspect.getfile(method)).resolve(), method.__qualname__
    except (TypeError, OSError) as error:
        raise PluginError(f"{method.__qualname__} lies in no file: {error}. Write it to a module.") from error


def local_files(registry: Registry) -> Sequence[Path]:
    """The plugins of a registry that came from files rather than from installed distributions, without the fakes."""
    paths = [Path(info.origin) for info in registry.plugins if os.sep in info.origin]
    return [path.resolve() for path in paths if path.exists() and path.resolve() != FAKES]


@contextmanager
def without_user_config(folder: Path) -> Iterator[None]:
    """The user's own configuration file is left out in the block."""
    before = os.environ.get("UDABENCH_CONFIG")
    os.environ["UDABENCH_CONFIG"] = str(folder / "no-config.yaml")
    try:
        yield
    finally:
        if before is None:
            del os.environ["UDABENCH_CONFIG"]
        else:
            os.environ["UDABENCH_CONFIG"] = before
