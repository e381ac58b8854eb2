"""From what a run measured to its record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udabench.results.environment import revision, versions
from udabench.results.matrices import Matrices
from udabench.results.record import (
    AncestorInfo,
    Checkpoint,
    Cost,
    Entropy,
    Flags,
    NetworkInfo,
    PassValues,
    Record,
    Score,
    TaskInfo,
)
from udabench.task import Task

if TYPE_CHECKING:
    from udabench.config import RunConfig
    from udabench.evaluate.evaluator import Evaluation
    from udabench.resolve import Resolved

MACHINE = ("data.roots", "data.store", "init_from")
"""Folders of one machine; a record is published."""


@dataclass(frozen=True)
class Scored:
    """An evaluation, and of what."""

    evaluation: Evaluation
    predictor: str
    checkpoint: Checkpoint
    iteration: int


def make_record(
    *,
    run: str,
    task: Task,
    resolved: Resolved,
    scored: Sequence[Scored],
    evaluations_made: int,
    network: NetworkInfo,
    cost: Cost,
    device: str,
    lists: Mapping[str, str],
    target_labels: bool = False,
    translated_input: bool = False,
    lossy_store: bool = False,
    collapse: Sequence[str] = (),
    resumed: int = 0,
    imported: str | None = None,
    ancestor: AncestorInfo | None = None,
    passes: Sequence[tuple[str, int, Mapping[str, float]]] = (),
) -> tuple[Record, Matrices]:
    """The record of a finished run, and the matrices that lie beside it.

    Args:
        run: ``<method>[-<preset>]-<network>-<hash8>-s<seed>``.
        scored: the paper's choice of predictor at the last checkpoint first; all on one set under one protocol.
        evaluations_made: over the whole run, not only those in ``scored``.
        lists: ``source``, ``target`` -> ``Dataset.digest()`` of the training split, where it was opened.
        target_labels, translated_input, lossy_store, collapse, resumed, imported, ancestor: see :class:`Flags`.
        passes: stage, iteration and values of each; see :class:`PassValues`.
    """
    config = resolved.config
    first = scored[0].evaluation
    if any(s.evaluation.protocol != first.protocol or s.evaluation.names != first.names for s in scored):
        raise ValueError("evaluations of one record must share their images and their protocol")
    scores = tuple(_score(s, task) for s in scored)
    matrices = Matrices(first.names, {k.key: s.evaluation.matrices for k, s in zip(scores, scored, strict=True)})
    flags = Flags(
        assumed=tuple(sorted(resolved.assumed)),
        target_labels=target_labels or (ancestor is not None and ancestor.target_labels),
        translated_input=translated_input,
        lossy_store=lossy_store,
        oracle_selection=any(score.oracle_selection for score in scores),
        unlabelled_selection=any(score.unlabelled_selection for score in scores),
        collapse=tuple(collapse),
        limited=config.evaluate.limit,
        training_images=_trained_on(config, lists),
        resumed=resumed,
        imported=imported,
        ancestor=ancestor,
    )
    record = Record(
        run=run,
        task=_task(task),
        method=config.method,
        preset=config.preset,
        network=network,
        config=_values(config),
        origins={key: _short(origin) for key, origin in resolved.origins.items() if key not in MACHINE},
        config_hash=config.hash,
        protocol={**asdict(first.protocol), "classes": list(first.protocol.classes)},
        protocol_hash=first.protocol.hash,
        seed=config.seed,
        evaluations=scores,
        evaluations_made=evaluations_made,
        cost=cost,
        versions=versions(),
        device=device,
        revision=revision(),
        flags=flags,
        lists=dict(lists),
        matrices=matrices.digest,
        passes=tuple(PassValues(stage=s, iteration=i, values=dict(values)) for s, i, values in passes),
    )
    return record, matrices


def _trained_on(config: RunConfig, lists: Mapping[str, str]) -> bool:
    domain = config.evaluate.domain
    trained = config.data.source_split if domain == "source" else config.data.target_split
    return domain in lists and config.evaluate.split == trained


def _task(task: Task) -> TaskInfo:
    return TaskInfo(
        name=task.name,
        source=task.source,
        target=task.target,
        label_space=task.classes.name,
        classes=task.classes.names,
        evaluated={name: tuple(ids) for name, ids in task.evaluated.items()},
    )


def _score(scored: Scored, task: Task) -> Score:
    evaluation = scored.evaluation
    entropy = evaluation.entropy
    return Score(
        predictor=scored.predictor,
        checkpoint=scored.checkpoint,
        iteration=scored.iteration,
        iou=dict(zip(task.classes.names, evaluation.iou.tolist(), strict=True)),
        means=evaluation.means,
        entropy=None if entropy is None else Entropy(**asdict(entropy)),
        unlabelled=dict(evaluation.unlabelled),
    )


def _values(config: RunConfig) -> dict[str, Any]:
    """Dotted key -> JSON value."""
    nested = config.model_dump(mode="json")
    return {key: _finite(_at(nested, key)) for key, _, _ in config.leaves() if key not in MACHINE}


def _at(nested: Any, key: str) -> Any:
    for part in key.split("."):
        nested = nested[part]
    return nested


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _short(origin: str) -> str:
    """A configuration file's name instead of its path on this machine."""
    return Path(origin).name if Path(origin).is_absolute() else origin
