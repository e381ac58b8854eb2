"""A plan with everything opened and built: what can fail for the user's reasons fails here, before a run begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from udabench.config import EngineConfig, RunConfig
from udabench.data.batches import whole_sample
from udabench.data.build import Builder, check_shares
from udabench.data.loader import auto_workers, stream
from udabench.data.locate import open_dataset
from udabench.data.store import PreparedDataset
from udabench.dataset import Dataset
from udabench.device import choose_device
from udabench.engine.artefacts import Artefacts
from udabench.engine.folder import RunFolder
from udabench.engine.seeding import seed_everything
from udabench.engine.stages import read_stages
from udabench.errors import UsageError
from udabench.evaluate.evaluator import limited
from udabench.method import Batch, Domain, Method, Samples, Stage
from udabench.run.evaluated import evaluated
from udabench.run.plan import Plan
from udabench.run.scoring import chosen_predictors
from udabench.run.setup import Initial, RunSetup, bare_method, build_method, check_crop
from udabench.translate.build import check_names
from udabench.world import in_turn, local_size, rank, world_size


@dataclass(frozen=True)
class Opened:
    """A plan with everything opened and built: the data, the method with its initial weights, the device.

    Attributes:
        training: the training split of each domain that some stage asks for; no other is ever opened.
        val: the evaluation split.
        builder: of batches; it hands out the target without labels unless the method is permitted to see them.
        lists: digests of the training lists, taken before anything is trained.
        lossy: whether training images come from a store that has changed their pixels (JPEG).
    """

    plan: Plan
    method: Method
    device: torch.device
    val: Dataset
    training: Mapping[Domain, Dataset]
    builder: Builder
    lists: Mapping[str, str]
    lossy: bool


def open_plan(plan: Plan, initial: Initial | None = None) -> Opened:
    """Open and build everything of a plan; write nothing. Raises UserError.

    Args:
        initial: what its networks begin with instead of the configured weights.
    """
    config = plan.config
    device = choose_device(config.engine.device)
    _check_device(config.engine, device)

    declared = _declared(plan)
    stages = read_stages(declared, config)
    check_shares(domains_of(stages), config.data, world_size())
    training = {domain: _open(plan, *trained_on(config, domain)) for domain in domains_of(stages)}
    val = _open(plan, *evaluated(config))
    if "source" in training:
        check_names(declared, training["source"].names)
    seed_everything(config.seed, "initial weights")
    with in_turn():
        setup = RunSetup(plan.registry, config, plan.task, initial)
        method = build_method(plan.method, config.settings, setup)
        builder = Builder(
            config.seed, config.data, plan.task.classes, training.get("source"), training.get("target"),
            method.target_labels, rank=rank(), world=world_size(),
        )  # fmt: skip
        for stage in stages:
            if stage.iterations and not stage.layers:
                builder.stage(stage)
    lossy = any(isinstance(stored := builder.stored(domain), PreparedDataset) and stored.lossy for domain in training)
    lists = {str(domain): opened.digest() for domain, opened in training.items()}
    return Opened(plan, method, device, limited(val, config.evaluate.limit), training, builder, lists, lossy)


def _open(plan: Plan, name: str, split: str, options: Mapping[str, Any]) -> Dataset:
    return open_dataset(plan.registry, name, split, plan.config.data.roots, options)


def trained_on(config: RunConfig, domain: Domain) -> tuple[str, str, Mapping[str, Any]]:
    """Name, split and options of a domain's data set."""
    if domain == "source":
        return config.source, config.data.source_split, config.data.source_options
    return config.target, config.data.target_split, config.data.target_options


def _check_device(engine: EngineConfig, device: torch.device) -> None:
    """Raises UsageError where the device cannot do what is asked."""
    if device.type == "cuda":
        return
    if engine.precision == "float16":
        raise UsageError("float16 needs a GPU; on the CPU use --precision float32 or bfloat16.")
    if engine.sync_norms and world_size() > 1:
        raise UsageError(
            "engine.sync_norms joins batch norms over GPUs, and this run is on the CPU. Set engine.sync_norms=false: "
            "each process then normalises by its own share of the batch."
        )


def _declared(plan: Plan) -> Method:
    """The method with random weights, for what it declares: a missing folder is told before weights are fetched."""
    method = bare_method(plan)
    check_crop(method, plan.config)
    chosen_predictors(method, plan.config)
    return method


def domains_of(stages: Sequence[Stage]) -> list[Domain]:
    """Every domain that some stage asks for."""
    known: tuple[Domain, ...] = ("source", "target")
    return [domain for domain in known if any(domain in stage.domains for stage in stages)]


def open_batches(opened: Opened, folder: RunFolder) -> Callable[[Stage, int, int, int], Iterator[Batch]]:
    """What the engine calls for a stage's batches: a stream of the batch function, with the layers' readers."""
    artefacts = Artefacts(folder.artefacts, opened.method.stages())

    def opener(stage: Stage, version: int, start: int, stop: int) -> Iterator[Batch]:
        readers = artefacts.readers(stage, version)
        for name, (domain, _) in stage.layers.items():
            readers[name].check(opened.training[domain].names)
        function = opened.builder.stage(stage, readers, artefacts.mined(stage, version))
        workers = auto_workers(opened.plan.config.data.workers, function, local_size())
        return stream(function, start, stop, workers, pin=opened.device.type == "cuda")

    return opener


def open_images(builder: Builder) -> Callable[[Domain, Callable[[str], bool]], Iterator[Samples]]:
    """What ``prepare`` walks over: whole resized training images, the target's without labels."""

    def opener(domain: Domain, skip: Callable[[str], bool]) -> Iterator[Samples]:
        images = builder.images(domain)
        for name in images.names:
            if not skip(name):
                yield whole_sample(images, name)

    return opener
