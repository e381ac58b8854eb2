"""The conductor: opens the data, builds the method, trains it, evaluates it, writes its record.

Everything that can fail for the user's reasons (a missing folder, weights of another network, a crop that does not
fit) is opened and built before the run folder is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from udabench.engine.declared import declarations
from udabench.engine.folder import RunFolder
from udabench.engine.train import train
from udabench.errors import UsageError
from udabench.method import Method
from udabench.results import Scored, read_record
from udabench.run.ancestor import without_ancestor
from udabench.run.disk import check_space, disk_use, free_space, state_sizes
from udabench.run.heritage import find_heritage
from udabench.run.initial import read_initial
from udabench.run.opened import Opened, open_batches, open_images, open_plan
from udabench.run.outcome import Outcome, Scores, ancestor_of, cost_of, write_outcome
from udabench.run.plan import Plan
from udabench.run.scoring import Scorer, chosen_predictors
from udabench.run.setup import bare_method
from udabench.run.takeover import take_over
from udabench.run.trained import stored_plan
from udabench.run.truth import Truth
from udabench.world import leads, meet


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
    if leads() and (warning := without_ancestor(plan.config)):
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[yellow]warning[/]  {warning}")
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
    states = state_sizes(bare_method(opened.plan))
    use = disk_use(opened.method.stages(), states, opened.plan.config, images, taken)
    if leads():
        check_space(use, folder.path)
        said = f"disk  {use.described()}; {decimal(free_space(folder.path))} free"
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
    scored = _evaluate(opened.method, scorer, result.iterations, folder)
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


def _evaluate(method: Method, scorer: Scorer, iterations: int, folder: RunFolder) -> list[Scored]:
    method.eval()
    try:
        with evaluation_progress() as progress:
            return scorer.final(method, progress, iterations)
    except BaseException:
        # The weights are stored: what failed can be repeated with `resume`.
        folder.update_run(status="failed")
        raise


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
