"""The conductor: opens the data, builds the method, trains it, evaluates it, writes its record.

Everything that can fail for the user's reasons (a missing folder, weights of another network, a crop that does not
fit) is opened and built before the run folder is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from udabench.config import EngineConfig
from udabench.data.batches import whole_sample
from udabench.data.build import Builder, check_shares
from udabench.data.loader import auto_workers, stream
from udabench.data.locate import open_dataset
from udabench.data.store import PreparedDataset
from udabench.dataset import Dataset
from udabench.device import choose_device
from udabench.engine.artefacts import Artefacts
from udabench.engine.declared import declarations
from udabench.engine.folder import RunFolder
from udabench.engine.seeding import seed_everything
from udabench.engine.stages import read_stages
from udabench.engine.train import TrainResult, train
from udabench.errors import UsageError
from udabench.evaluate.evaluator import limited
from udabench.method import Batch, Domain, Method, Samples, Stage
from udabench.results import AncestorInfo, Cost, NetworkInfo, Record, Scored, make_record, read_record, write_record
from udabench.run.disk import check_space, disk_use, free_space
from udabench.run.evaluated import evaluated
from udabench.run.heritage import find_heritage
from udabench.run.initial import read_initial
from udabench.run.plan import Plan
from udabench.run.scoring import Scorer, chosen_predictors
from udabench.run.setup import Initial, RunSetup, build_method, check_crop
from udabench.run.takeover import take_over
from udabench.run.trained import stored_plan
from udabench.run.truth import Truth
from udabench.translate.build import check_names
from udabench.world import in_turn, leads, local_size, meet, rank, world_size


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    folder: Path
    record: Record


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

    def dataset(name: str, split: str, options: Mapping[str, Any]) -> Dataset:
        return open_dataset(plan.registry, name, split, config.data.roots, options)

    declared = _declared(plan)
    stages = read_stages(declared, config)
    check_shares(domains_of(stages), config.data, world_size())
    training: dict[Domain, Dataset] = {}
    for domain in domains_of(stages):
        source = domain == "source"
        training[domain] = dataset(
            config.source if source else config.target,
            config.data.source_split if source else config.data.target_split,
            config.data.source_options if source else config.data.target_options,
        )
    val = dataset(*evaluated(config))
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
    config = plan.config
    method = build_method(plan.method, config.settings, RunSetup(plan.registry, config, plan.task, bare=True))
    check_crop(method, config)
    chosen_predictors(method, config)
    return method


def domains_of(stages: Sequence[Stage]) -> list[Domain]:
    """Every domain that some stage asks for."""
    known: tuple[Domain, ...] = ("source", "target")
    return [domain for domain in known if any(domain in stage.domains for stage in stages)]


def start_run(plan: Plan, runs: Path) -> Outcome:
    """Train, evaluate and record a plan in a new folder below ``runs``.

    Raises:
        UserError: whatever is the user's to mend; also when the folder is taken (say how to go on).
    """
    folder = RunFolder(runs / plan.folder_name)
    check_free(folder)
    heritage = find_heritage(plan)
    opened = open_plan(plan, None if heritage is None else heritage.initial)
    _check_disk(opened, folder, 0 if heritage is None else len(heritage.stages))
    with folder.lock():
        check_free(folder)
        if heritage is not None and leads():
            take_over(heritage, folder, plan.config)
        meet()
        stages = declarations(opened.method.stages())
        ancestor = None if heritage is None else heritage.described()
        folder.update_run(**describe(plan), weights=initial_weights(opened.method), stages=stages, ancestor=ancestor)
        return _carry_out(opened, folder)


def _check_disk(opened: Opened, folder: RunFolder, taken: int) -> None:
    """Say what the run will take. Raises UserError where there is less."""
    images = {domain: len(dataset) for domain, dataset in opened.training.items()}
    use = disk_use(opened.method, opened.plan.config, images, taken)
    if leads():
        check_space(use, folder.path)
        said = f"disk  {use.described()}; {free_space(folder.path) / 2**30:.0f} GiB free"
        Console(stderr=True, highlight=False, soft_wrap=True).print(said, markup=False)


def check_free(folder: RunFolder) -> None:
    """Raises UsageError when a run is there already. Rank 0 looks for all: soon it is there itself."""
    if not leads():
        return
    if folder.record.is_file():
        raise UsageError(
            f"{folder.path} holds the finished run of this configuration and seed. Look at it with 'udabench show', "
            "take another --seed, change a value, choose another folder with --runs, or delete it (a plugin's code is "
            "not part of the configuration)."
        )
    if folder.run_json.exists():
        raise UsageError(
            f"{folder.path} holds an unfinished run. Go on with it: udabench resume {folder.path} - or, if its plugin "
            "has changed since, delete the folder."
        )


def describe(plan: Plan) -> dict[str, Any]:
    """What ``run.json`` keeps of a plan: enough to go on from the folder alone."""
    return {
        "config": plan.config.model_dump(mode="json"),
        "config_hash": plan.config.hash,
        "origins": dict(plan.resolved.origins),
        "plugins": [str(path) for path in plan.plugin_files],
    }


def initial_weights(method: Method) -> list[dict[str, Any]]:
    """What ``run.json`` keeps of the network's start: the last checkpoint alone cannot tell it."""
    return [asdict(report) for report in method.network_of_record().reports]


def resume_run(path: Path, plugins: Sequence[Path] = (), device: str | None = None) -> Outcome:
    """Go on with a run from its last checkpoint; a finished one is returned as it is.

    Raises:
        UsageError: the folder holds no run.
        UserError: another process works on it.
    """
    folder = RunFolder(path)
    plan = stored_plan(folder, plugins)
    if folder.record.is_file():
        return Outcome(path, read_record(path))
    if folder.status == "imported":
        raise UsageError(f"{path} holds imported weights: no training to go on with. Try: udabench evaluate {path}")
    if device is not None:
        engine = plan.config.engine.model_copy(update={"device": device})
        config = plan.config.model_copy(update={"engine": engine})
        plan = replace(plan, resolved=replace(plan.resolved, config=config))
    opened = open_plan(plan, read_initial(folder))
    with folder.lock():
        return _carry_out(opened, folder)


def _carry_out(opened: Opened, folder: RunFolder) -> Outcome:
    """Train from wherever the folder stands, evaluate, write the record."""
    plan = opened.plan
    folder.update_run(device=str(opened.device))
    scorer = Scorer(plan, opened.val, opened.device, folder.path)
    target = opened.training.get("target")
    result = train(
        opened.method,
        plan.config,
        plan.task,
        folder,
        open_batches(opened, folder),
        opened.device,
        open_images=open_images(opened.builder),
        evaluate=scorer.during,
        truth=None if target is None else Truth(target, plan.task.classes),
    )
    began = time.perf_counter()
    opened.method.eval()
    try:
        with evaluation_progress() as progress:
            scored = scorer.final(opened.method, progress, result.iterations)
    except BaseException:
        # The weights are stored: what failed can be repeated with `resume`.
        folder.update_run(status="failed")
        raise
    scores = Scores(
        scored,
        made=len(result.evaluations) + len(chosen_predictors(opened.method, plan.config)),
        cost=cost_of(result, scored, time.perf_counter() - began),
        lists=opened.lists,
        lossy_store=opened.lossy,
        collapse=result.warnings,
        resumed=int(folder.read_run().get("sessions", 1)) - 1,
        passes=result.passes,
        ancestor=ancestor_of(folder),
    )
    record = write_outcome(plan, folder.path, folder.path.name, opened.method, opened.device, scores)
    folder.update_run(status="finished")
    if leads():
        plan.registry.events.hook.run_finished(folder=str(folder.path), record=record.model_dump(mode="json"))
    return Outcome(folder.path, record)


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


@dataclass(frozen=True)
class Scores:
    """What an evaluation found, and what a reader must know of it; see :func:`udabench.results.make_record`."""

    scored: Sequence[Scored]
    made: int
    cost: Cost
    lists: Mapping[str, str]
    collapse: Sequence[str] = ()
    resumed: int = 0
    lossy_store: bool = False
    imported: str | None = None
    passes: Sequence[tuple[str, int, Mapping[str, float]]] = ()
    ancestor: AncestorInfo | None = None


def ancestor_of(folder: RunFolder) -> AncestorInfo | None:
    """The run that a run folder's run began from."""
    stored = folder.read_run().get("ancestor")
    return None if stored is None else AncestorInfo(**stored)


def cost_of(result: TrainResult, scored: Sequence[Scored], evaluation_seconds: float) -> Cost:
    """The cost of a training and of the evaluations at its end."""
    return Cost(
        iterations=result.iterations,
        images=result.images_seen,
        wall_seconds=result.wall_seconds + evaluation_seconds,
        step_seconds=result.step_seconds,
        data_wait=result.wait_share,
        peak_memory=result.peak_memory,
        evaluation_seconds=scored[0].evaluation.seconds,
    )


def write_outcome(plan: Plan, folder: Path, name: str, method: Method, device: torch.device, scores: Scores) -> Record:
    """The record of what was scored, written beside its matrices."""
    network = method.network_of_record()
    chosen = plan.config.network
    parameters = sum(p.numel() for p in network.parameters())
    record, matrices = make_record(
        run=name,
        task=plan.task,
        resolved=plan.resolved,
        scored=scores.scored,
        evaluations_made=scores.made,
        network=NetworkInfo.of(chosen.name, chosen.weights, parameters, network.reports),
        cost=scores.cost,
        device=device_name(device),
        lists=scores.lists,
        target_labels=method.target_labels,
        translated_input=method.translated_input,
        lossy_store=scores.lossy_store,
        collapse=scores.collapse,
        resumed=scores.resumed,
        imported=scores.imported,
        passes=scores.passes,
        ancestor=scores.ancestor,
    )
    if leads():
        write_record(folder, record, matrices)
    return record


def device_name(device: torch.device) -> str:
    """``cuda (NVIDIA ...)`` or ``cpu``, with the number of processes where there are several."""
    name = f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
    return name if world_size() == 1 else f"{world_size()} x {name}"


@contextmanager
def evaluation_progress() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """A bar for each predictor that is evaluated."""
    title = TextColumn("evaluating {task.description}")
    columns = (title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def bar(name: str) -> Callable[[int, int], None]:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield bar
