"""Carrying out a study: each run walks over its images, and every analysis that asks for them sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from udabench.analysis.base import Analysis, Place, Seen, Subject
from udabench.analysis.study import Run, Study
from udabench.analysis.tap import Tap, tapped
from udabench.config import Section
from udabench.data.batches import samples_to_device
from udabench.method import Samples
from udabench.size import Size

Progress = Callable[[str, int, int], None]
"""Told ``(what, done, total)`` images of the whole study."""


@dataclass
class Finding:
    """What one analysis found: a table for each run, and what a reader must know of each."""

    name: str
    analysis: type[Analysis]
    config: Section
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def carry_out(study: Study, progress: Progress) -> list[Finding]:
    """Every analysis of every run. Raises DataError for a file that cannot be read."""
    findings = [Finding(name, analysis, config) for name, (analysis, config) in study.analyses.items()]
    total = sum(len(run.images[place]) for run in study.runs for _, place in walks(study))
    done = 0

    def step(what: str, seen: int = 1) -> None:
        nonlocal done
        done += seen
        progress(what, done, total)

    for run in study.runs:
        run.trained.method.to(study.device)
        _look(study, run, findings, step)
        run.trained.method.to("cpu")
    return findings


def walks(study: Study) -> list[tuple[int, Place]]:
    """The rounds and the images of each, those of all analyses together."""
    rounds = [analysis.rounds for analysis, _ in study.analyses.values()]
    wanted = {(turn, place) for one in rounds for turn, places in enumerate(one) for place in places}
    return sorted(wanted)


def _look(study: Study, run: Run, findings: Sequence[Finding], step: Callable[[str, int], None]) -> None:
    subject = Subject(run.trained.method, run.trained.plan.config, run.trained.plan.task.classes)
    analyses = [finding.analysis(finding.config, subject) for finding in findings]
    shapes: dict[Place, list[int]] = {}
    with torch.inference_mode(), tapped(run.trained.method) as tap:
        for turn, place in walks(study):
            asking = [a for a in analyses if turn < len(a.rounds) and place in a.rounds[turn]]
            for case in run.images[place].read():
                seen = see(study, run, place, case.samples, case.label, tap)
                shapes[place] = list(seen.features.shape)
                for analysis in asking:
                    analysis.look(seen, turn)
                step(f"{run.title}: {place}, round {turn + 1}", 1)
    for finding, analysis in zip(findings, analyses, strict=True):
        step(f"{run.title}: {finding.name}", 0)
        finding.tables[run.title] = analysis.table()
        finding.notes[run.title] = {**described(run, type(analysis), shapes), **analysis.notes()}


def see(study: Study, run: Run, place: Place, samples: Samples, label: Tensor | None, tap: Tap) -> Seen:
    """One image through the network: whole, in float32. Only target images get the method's test-time look."""
    method = run.trained.method
    samples = samples_to_device(samples, study.device)
    if place != "source":
        samples = method.look(samples)
    logits = run.predictors[place][1](samples).float()
    wanted = study.request.features
    output = tap.take(method) if tap.heard or wanted == "last" else None
    features = logits if output is None or wanted == "logits" else output.features[-1].float()
    truth = None if label is None else label.to(study.device)
    size = Size(*(truth if truth is not None else samples.image).shape[-2:])
    align_corners = run.trained.plan.config.evaluate.align_corners
    scores = None if output is None else output.score_map.float()
    return Seen(place, samples, features[0], logits, truth, size, align_corners, scores)


def described(run: Run, analysis: type[Analysis], shapes: Mapping[Place, Sequence[int]]) -> dict[str, Any]:
    """Which run and which images, for the JSON file."""
    places = sorted({place for turn in analysis.rounds for place in turn})
    return {
        "run": str(run.trained.folder),
        "iteration": run.trained.iteration,
        "images": {
            place: {
                **run.images[place].described(),
                "predictor": run.predictors[place][0],
                "features (channels, height, width)": shapes.get(place),
            }
            for place in places
        },
    }
