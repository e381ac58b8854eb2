"""Analyses of one or several runs: everything is opened and checked before the first image is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from udabench.analysis.base import Analysis, Place
from udabench.analysis.images import Images, open_images
from udabench.analysis.titles import titles_of
from udabench.config import Section
from udabench.device import choose_device
from udabench.engine.folder import RunFolder
from udabench.errors import UsageError, unknown
from udabench.method import Samples
from udabench.plugins import load_registry
from udabench.registry import Catalogue
from udabench.run.plan import Plan
from udabench.run.trained import Trained, load_trained, run_folder_of, stored_plan

Predictor = Callable[[Samples], Tensor]
TEACHER = "teacher"


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        runs: run folders or checkpoints.
        only: names of analyses; None: all for which everything is installed.
        overrides: ``<analysis>.<key>`` -> value.
        features: the last map of the encoder, or the logits.
        predictor: ``student`` or ``teacher``; None: the paper's choice.
        split: of the target; None: the one that the run evaluates.
        limit: images of each split.
    """

    runs: Sequence[Path]
    only: Sequence[str] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    features: Literal["last", "logits"] = "last"
    predictor: str | None = None
    split: str | None = None
    limit: int | None = None
    device: str = "auto"
    plugins: Sequence[Path] = ()


@dataclass(frozen=True)
class Run:
    """A trained run with what it is looked at on.

    Attributes:
        predictors: by place, with their names.
        images: by place.
    """

    title: str
    trained: Trained
    predictors: Mapping[Place, tuple[str, Predictor]]
    images: Mapping[Place, Images]


@dataclass(frozen=True)
class Study:
    """Opened and checked: only a broken file can still stop it.

    Attributes:
        analyses: name -> class and configuration.
        left_out: names of analyses that nobody named, with the reason why they are not made.
    """

    request: Request
    runs: Sequence[Run]
    analyses: Mapping[str, tuple[type[Analysis], Section]]
    left_out: Mapping[str, str]
    device: torch.device


def open_study(request: Request) -> Study:
    """Load the runs, open the data, choose the analyses. Raises UserError for whatever is not as it should be."""
    device = choose_device(request.device)
    plans = [stored_plan(RunFolder(run_folder_of(path)), request.plugins) for path in request.runs]
    check_alike(request.runs, plans)
    catalogue = load_registry(list(dict.fromkeys(f for plan in plans for f in plan.plugin_files))).analyses
    analyses, left_out = choose(catalogue, request.only, request.overrides)
    places = {place for analysis, _ in analyses.values() for turn in analysis.rounds for place in turn}
    images = [
        {place: open_images(plan, place, request.split, request.limit) for place in sorted(places)} for plan in plans
    ]
    check_same_images(request.runs, images)
    # On the CPU until its turn comes: any number of runs need no more room on a GPU than one.
    trained = [load_trained(path, "cpu", request.plugins) for path in request.runs]
    runs = [
        Run(title, one, predictors_of(one, request.predictor), here)
        for title, one, here in zip(titles_of(trained), trained, images, strict=True)
    ]
    return Study(request, runs, analyses, left_out, device)


def check_alike(paths: Sequence[Path], plans: Sequence[Plan]) -> None:
    """Raises UsageError for runs of different tasks or classes, or a run that is named twice."""
    seen: set[Path] = set()
    for path, plan in zip(paths, plans, strict=True):
        if path.resolve() in seen:
            raise UsageError(f"{path} is named twice. Name each run once.")
        seen.add(path.resolve())
        first = plans[0].task
        if (plan.task.name, plan.task.classes.names) != (first.name, first.classes.names):
            raise UsageError(
                f"{path} is a run of {plan.task.name} ({plan.task.classes.name}), but {paths[0]} one of {first.name} "
                f"({first.classes.name}). Only runs of one task and one list of classes stand in one table."
            )


def check_same_images(paths: Sequence[Path], images: Sequence[Mapping[Place, Images]]) -> None:
    """Raises UsageError for runs that would be looked at on different images of the target."""
    for path, here in zip(paths, images, strict=True):
        mine, first = here.get("target"), images[0].get("target")
        if mine and first and mine.dataset.digest() != first.dataset.digest():
            raise UsageError(
                f"{path} is evaluated on {len(mine)} images of {mine.name} '{mine.dataset.split}', but {paths[0]} on "
                f"{len(first)} of '{first.dataset.split}': other images cannot stand in one table. Name one --split "
                "for all; runs with other options of the data set are looked at one by one."
            )


def choose(
    catalogue: Catalogue, only: Sequence[str] | None, overrides: Mapping[str, Any]
) -> tuple[dict[str, tuple[type[Analysis], Section]], dict[str, str]]:
    """The analyses with their configurations, and those that are left out. Raises UsageError."""
    chosen: dict[str, tuple[type[Analysis], Section]] = {}
    left_out = {}
    values = _by_analysis(catalogue, overrides)
    if only is not None and not only:
        raise UsageError(f"--only names no analysis. Known: {', '.join(catalogue.names())}.")
    for name in dict.fromkeys(only or catalogue.names()):
        analysis: type[Analysis] = catalogue.get(name)
        lacking = lacks(name, analysis)
        if lacking and only:
            raise UsageError(lacking)
        if lacking:
            left_out[name] = lacking
        else:
            chosen[name] = analysis, _configure(name, analysis, values.get(name, {}))
    for name in values.keys() - chosen.keys():
        raise UsageError(f"--set {name}.{min(values[name])}: analysis '{name}' is not made. See --only.")
    return chosen, left_out


def lacks(name: str, analysis: type[Analysis]) -> str | None:
    """What an analysis needs and does not find, and how to get it; None where all is there."""
    for module, remedy in analysis.needs.items():
        if find_spec(module) is None:
            return f"Analysis '{name}' needs the module {module}: {remedy}. Or name the others with --only."
    return None


def _by_analysis(catalogue: Catalogue, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for full, value in overrides.items():
        name, dot, key = full.partition(".")
        if not dot:
            raise UsageError(f"--set takes <analysis>.<key>=value, such as ccd.divisor=literal; not '{full}'.")
        catalogue.describe(name)
        found.setdefault(name, {})[key] = value
    return found


def _configure(name: str, analysis: type[Analysis], values: Mapping[str, Any]) -> Section:
    for key in values:
        if key not in analysis.Config.model_fields:
            raise unknown(f"key of analysis {name}:", key, analysis.Config.model_fields)
    try:
        return analysis.Config.model_validate(values)
    except ValidationError as error:
        said = [f"{name}.{e['loc'][0]} = {e['input']!r}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors()]
        raise UsageError("\n".join(said)) from None


def predictors_of(trained: Trained, wanted: str | None) -> dict[Place, tuple[str, Predictor]]:
    """Who looks at which images: the one that is asked for, and for pseudo-labels the teacher, where there is one."""
    known = trained.method.predictors()
    if wanted is not None and wanted not in known:
        raise unknown(f"predictor of {trained.folder.name}:", wanted, known)
    name = wanted or next(iter(known))
    adapting = wanted or (TEACHER if TEACHER in known else name)
    return {
        "target": (name, known[name]),
        "source": (name, known[name]),
        "adapted": (adapting, known[adapting]),
    }
