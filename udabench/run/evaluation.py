"""Evaluates a trained run again, or otherwise than at its end: another input size, sliding windows, a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from udabench.data.locate import open_dataset
from udabench.engine.folder import RunFolder
from udabench.errors import UsageError
from udabench.evaluate.evaluator import limited
from udabench.network import WeightsReport
from udabench.resolve import Layer, Resolved, resolve
from udabench.results import Cost, read_record
from udabench.run.conduct import evaluation_progress
from udabench.run.evaluated import evaluated
from udabench.run.outcome import Outcome, Scores, ancestor_of, write_outcome
from udabench.run.plan import COMMAND_LINE, Plan
from udabench.run.scoring import Scorer
from udabench.run.trained import Trained, load_trained

ALLOWED = ("evaluate.", "data.roots", "engine.device", "engine.precision", "engine.probe")
"""What may differ from the training; anything else would be another network."""


def evaluate_run(
    path: Path, overrides: Mapping[str, Any], plugins: Sequence[Path] = (), device: str | None = None
) -> Outcome:
    """Evaluate every predictor of a run or checkpoint, and write a record of it below the run folder.

    The record lies in ``evaluated/<hash>-<iteration>/``, where the hash is that of the configuration with these
    settings: a row of its own.

    Raises:
        UsageError: a key that belongs to the training.
        CheckpointError: there is no sound checkpoint.
    """
    trained = load_trained(path, device or "auto", plugins)
    plan = _with(trained.plan, overrides)
    config = plan.config
    name, split, options = evaluated(config)
    val = limited(open_dataset(plan.registry, name, split, config.data.roots, options), config.evaluate.limit)
    folder = RunFolder(trained.folder / "evaluated" / f"{config.hash}-{trained.iteration}")
    scorer = Scorer(plan, val, trained.device, folder.path)
    with evaluation_progress() as progress:
        scored = scorer.final(trained.method, progress, trained.iteration)
    cost, lists = _trained_cost(trained)
    ancestor = ancestor_of(RunFolder(trained.folder))
    scores = Scores(scored, len(scored), cost, lists, imported=_recall_weights(trained), ancestor=ancestor)
    folder.path.mkdir(parents=True, exist_ok=True)
    record = write_outcome(plan, folder.path, f"{plan.row_name}-s{config.seed}", trained.method, trained.device, scores)
    return Outcome(folder.path, record)


def _recall_weights(trained: Trained) -> str | None:
    """Let the network report the weights that the run began with; their file, where nothing was trained from it."""
    folder = RunFolder(trained.folder)
    reports = tuple(WeightsReport(**stored) for stored in folder.read_run().get("weights", ()))
    trained.method.network_of_record().reports = reports
    return reports[0].source if folder.status == "imported" else None


def _with(plan: Plan, overrides: Mapping[str, Any]) -> Plan:
    values = plan.config.model_dump(mode="json")
    layers = [Layer("run folder", values), Layer(COMMAND_LINE, overrides)]
    resolved = resolve(type(plan.config.settings), layers, plan.registry.datasets.names())
    origins = dict(plan.resolved.origins)
    for key, origin in resolved.origins.items():
        if origin != COMMAND_LINE:
            continue
        if not key.startswith(ALLOWED):
            raise UsageError(f"'{key}' belongs to the training; an evaluation may change {', '.join(ALLOWED)}.")
        origins[key] = COMMAND_LINE
    return replace(plan, resolved=Resolved(resolved.config, origins))


def _trained_cost(trained: Trained) -> tuple[Cost, Mapping[str, str]]:
    """What the training cost and was trained on, from the run's own record where it has ended."""
    if RunFolder(trained.folder).record.is_file():
        record = read_record(trained.folder)
        return record.cost, record.lists
    return Cost(iterations=trained.iteration, images=0, wall_seconds=0.0), {}
