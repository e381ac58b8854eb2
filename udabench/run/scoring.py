"""A run's evaluations: during the training, where asked, and of every predictor at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from udabench.config import RunConfig
from udabench.data.parallel import Progress
from udabench.dataset import Dataset
from udabench.engine.evaluation import Evaluated
from udabench.engine.files import read_json, write_json
from udabench.errors import unknown
from udabench.evaluate.evaluator import Evaluation, evaluate, present_classes
from udabench.evaluate.inference import Predictor
from udabench.evaluate.metrics import iou, mean_ious
from udabench.evaluate.selection import RULES, choose
from udabench.method import Method, Samples
from udabench.results import Matrices, Scored
from udabench.results.record import Checkpoint
from udabench.run.evaluated import usual_size
from udabench.run.plan import Plan
from udabench.task import protocol_of
from udabench.world import leads

FOLDER = "evaluations"
Kept = Mapping[str, Any]
"""An evaluation during the training, as its file holds it: ``iteration``, ``predictor``, ``values``, ``unlabelled``."""


def chosen_predictors(method: Method, config: RunConfig) -> Mapping[str, Predictor]:
    """The method's predictors that ``evaluate.predictors`` names, the paper's choice first. Raises UsageError."""
    known, wanted = method.predictors(), config.evaluate.predictors
    for name in wanted or ():
        if name not in known:
            raise unknown("predictor (evaluate.predictors)", name, known)
    return {name: predictor for name, predictor in known.items() if not wanted or name in wanted}


@dataclass(frozen=True)
class Scorer:
    """Scores a plan's method on its evaluation split.

    Attributes:
        folder: where evaluations during the training are kept, so that a resumed run still knows its best.
    """

    plan: Plan
    val: Dataset
    device: torch.device
    folder: Path

    def score(
        self, method: Method, predictor: Callable[[Samples], Tensor], progress: Progress | None = None
    ) -> Evaluation:
        """One predictor of a method, now."""
        config = self.plan.config
        size = usual_size(config)
        return evaluate(
            predictor,
            self.val,
            self.plan.task,
            config.evaluate,
            size,
            self.device,
            look=method.look,
            progress=progress,
            probe=config.engine.probe,
            precision=config.engine.precision,
            present=present_classes(self.plan.source_set, self.plan.task.classes),
        )

    def during(self, method: Method, iteration: int) -> Evaluated:
        """Score the paper's choice of predictor during the training, and keep what was found."""
        name, predictor = next(iter(chosen_predictors(method, self.plan.config).items()))
        evaluation = self.score(method, predictor)
        values = dict(evaluation.means)
        if evaluation.entropy is not None:
            values["entropy of correct pixels"] = evaluation.entropy.correct
            values["entropy of incorrect pixels"] = evaluation.entropy.incorrect
        # JSON has no NaN: what is undefined (no incorrect pixel, a class that is nowhere) is left out.
        values = {key: value for key, value in values.items() if math.isfinite(value)}
        unlabelled = dict(evaluation.unlabelled)
        place = self.folder / FOLDER / str(iteration)
        if leads():
            Matrices(evaluation.names, {name: evaluation.matrices}).write(place.with_suffix(".matrices"))
            entry = {"iteration": iteration, "predictor": name, "values": values, "unlabelled": unlabelled}
            write_json(place.with_suffix(".json"), entry)
        logged = {**values, **{f"unlabelled {rule}": value for rule, value in unlabelled.items()}}
        return Evaluated(logged, {name: torch.from_numpy(evaluation.matrices.sum(0))})

    def final(self, method: Method, progress: Callable[[str], Progress], iteration: int) -> list[Scored]:
        """Every chosen predictor as it is now, the paper's choice first; then what the rules choose for that one among
        the training's evaluations."""
        scored = [
            Scored(self.score(method, predictor, progress(name)), name, "last", iteration)
            for name, predictor in chosen_predictors(method, self.plan.config).items()
        ]
        kept = self._kept() if leads() else []
        return [*scored, *self._best(kept, scored[0]), *self._chosen_without_labels(kept, scored[0])]

    def _kept(self) -> list[Kept]:
        folder = self.folder / FOLDER
        return [read_json(path) for path in sorted(folder.glob("*.json"), key=lambda p: int(p.stem))]

    def _best(self, kept: Sequence[Kept], last: Scored) -> Iterator[Scored]:
        """The evaluation with the highest headline, of equals the first; nothing where none is better than the last:
        that one is also the best, and there is no second row for it."""
        headline = self.plan.task.headline
        values = [float(entry["values"].get(headline, -1.0)) for entry in kept]
        if values and max(values) > last.evaluation.means[headline]:
            yield self._read(kept[values.index(max(values))], "best")

    def _chosen_without_labels(self, kept: Sequence[Kept], last: Scored) -> Iterator[Scored]:
        """The choice of each rule, be it the last evaluation: its mean over seeds would else leave those seeds out."""
        before = {e["iteration"]: e for e in kept if e.get("unlabelled") and e["predictor"] == last.predictor}
        seen = {iteration: entry["unlabelled"] for iteration, entry in before.items()}
        for rule in RULES if before else ():
            chosen = choose(rule, {**seen, last.iteration: last.evaluation.unlabelled})
            yield replace(last, checkpoint=rule) if chosen == last.iteration else self._read(before[chosen], rule)

    def _read(self, found: Kept, rule: Checkpoint) -> Scored:
        """An evaluation that was made during the training."""
        stored = Matrices.read((self.folder / FOLDER / str(found["iteration"])).with_suffix(".matrices"))
        matrices = stored.by_score[found["predictor"]]
        values = iou(matrices.sum(0))
        protocol = protocol_of(self.plan.task, self.val, self.plan.config.evaluate)
        means = mean_ious(values, self.plan.task.evaluated)
        unlabelled = found.get("unlabelled", {})
        evaluation = Evaluation(stored.names, matrices, values, means, 0.0, None, protocol, unlabelled)
        return Scored(evaluation, found["predictor"], rule, found["iteration"])
