"""A run's evaluations: during the training, where asked, and of every predictor at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

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
from udabench.method import Method, Samples
from udabench.results import Matrices, Scored
from udabench.run.evaluated import usual_size
from udabench.run.plan import Plan
from udabench.task import protocol_of

FOLDER = "evaluations"


@dataclass(frozen=True)
def chosen_predictors(method: Method, config: RunConfig) -> Mapping[str, Predictor]:
    """The method's predictors that ``evaluate.predictors`` names, the paper's choice first. Raises UsageError."""
    known, wanted = method.predictors(), config.evaluate.predictors
    for name in wanted or ():
        if name not in known:
            raise unknown("predictor (evaluate.predictors)", name, known)
    return {name: predictor for name, predictor in known.items() if not wanted or name in wanted}


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
        place = self.folder / FOLDER / str(iteration)
        Matrices(evaluation.names, {name: evaluation.matrices}).write(place.with_suffix(".matrices"))
        write_json(place.with_suffix(".json"), {"iteration": iteration, "predictor": name, "values": values})
        return Evaluated(values, {name: torch.from_numpy(evaluation.matrices.sum(0))})

    def final(self, method: Method, progress: Callable[[str], Progress], iteration: int) -> list[Scored]:
        """Every chosen predictor as it is now, the paper's choice first; then the best of the training's evaluations,
        where it was better than the first of these."""
        scored = [
            Scored(self.score(method, predictor, progress(name)), name, "last", iteration)
            for name, predictor in chosen_predictors(method, self.plan.config).items()
        ]
        best, headline = self._best(), self.plan.task.headline
        # Where nothing before was better, the last one is also the best: there is no second row for it then.
        better = best is not None and best.evaluation.means[headline] > scored[0].evaluation.means[headline]
        return [*scored, best] if best is not None and better else scored

    def _kept(self) -> Iterator[Path]:
        folder = self.folder / FOLDER
        yield from sorted(folder.glob("*.json"), key=lambda p: int(p.stem)) if folder.is_dir() else ()

    def _best(self) -> Scored | None:
        """The evaluation with the highest headline; of equals the first."""
        headline = self.plan.task.headline
        kept = [read_json(path) for path in self._kept()]
        if not kept:
            return None
        found = max(kept, key=lambda entry: float(entry["values"].get(headline, -1.0)))
        stored = Matrices.read((self.folder / FOLDER / str(found["iteration"])).with_suffix(".matrices"))
        matrices = stored.by_score[found["predictor"]]
        values = iou(matrices.sum(0))
        protocol = protocol_of(self.plan.task, self.val, self.plan.config.evaluate)
        means = mean_ious(values, self.plan.task.evaluated)
        evaluation = Evaluation(stored.names, matrices, values, means, 0.0, None, protocol)
        return Scored(evaluation, found["predictor"], "best", found["iteration"])
