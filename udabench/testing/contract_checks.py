"""Checks of what a method declares: its configuration and its stages."""

from __future__ import annotations

import json
from collections import Counter

from udabench.config import MethodConfig
from udabench.method import Method, Stage
from udabench.presets import presets_of
from udabench.testing.result import Broken
from udabench.testing.subject import NAME, Subject


def check_config(subject: Subject) -> str:
    """Defaults validate, every value has a description and an origin, and all survive JSON."""
    kind = subject.method.Config
    if not (isinstance(kind, type) and issubclass(kind, MethodConfig)):
        raise Broken(f"{subject.method.__name__}.Config must be a subclass of udabench.MethodConfig.")
    for name, field in kind.model_fields.items():
        extra = field.json_schema_extra
        if not field.description or not isinstance(extra, dict) or not extra.get("origin"):
            raise Broken(
                f"Config.{name} has no description or no origin. Declare it with "
                'setting(default, "what it is", origin="paper Eq 3") ("assumed" where no source states it).'
            )
    for one in (kind(), subject.plan.config.settings):
        again = type(one).model_validate(json.loads(one.model_dump_json()))
        if again != one:
            differing = [n for n in kind.model_fields if getattr(again, n) != getattr(one, n)]
            raise Broken(
                f"Config changes when it is written as JSON and read again: {', '.join(differing)}. Use numbers, "
                "strings, tuples, mappings or types with a JSON form."
            )
    return f"{len(kind.model_fields)} settings"


def check_presets(subject: Subject) -> str:
    """Every preset resolves to a valid configuration."""
    names = sorted(presets_of(subject.registry.methods.describe(NAME)))
    for name in names:
        subject.plan_of(name)
    return ", ".join(names)


def check_stages(subject: Subject) -> str:
    """Stages have unique names and a length, and train the method's own parameters."""
    method = subject.build()
    stages = method.stages()
    if not stages:
        raise Broken("stages() is empty. Return at least one Stage.")
    twice = [name for name, count in Counter(stage.name for stage in stages).items() if count > 1]
    if twice:
        raise Broken(f"Two stages are called '{twice[0]}'. Give each its own name: artefacts and logs lie under it.")
    for index in range(len(stages)):
        # Entered as in a run: a start may begin a network of its own.
        if (start := method.stages()[index].start) is not None:
            start()
        _check_stage(method.stages()[index], {id(p) for p in method.parameters()})
    if [stage.name for stage in method.stages()] != [stage.name for stage in stages]:
        raise Broken("stages() gives other stages when it is called again. It must only declare.")
    return ", ".join(f"{stage.name} ({stage.iterations})" for stage in stages)


def _check_stage(stage: Stage, own: set[int]) -> None:
    if stage.iterations == 0 and stage.prepare is not None:
        return
    if stage.iterations < 1:
        raise Broken(
            f"Stage '{stage.name}' has {stage.iterations} iterations. Derive its length from setup.iterations so that "
            "short runs keep every stage, at least 1 step long."
        )
    if not stage.optimizers:
        raise Broken(f"Stage '{stage.name}' has no optimisers. Name at least one: losses refer to them.")
    for name, optimizer in stage.optimizers.items():
        parameters = [p for group in optimizer.groups for p in group.parameters]
        if not parameters:
            raise Broken(f"Optimiser '{name}' of stage '{stage.name}' has no parameters.")
        if len({id(p) for p in parameters}) < len(parameters):
            raise Broken(f"Optimiser '{name}' of stage '{stage.name}' lists a parameter twice.")
        if any(id(p) not in own for p in parameters):
            raise Broken(
                f"Optimiser '{name}' of stage '{stage.name}' trains a parameter that is not the method's. Assign the "
                "module in __init__ (self.network = ...) or in the stage's start, or no checkpoint will hold it."
            )


def check_builds(subject: Subject) -> str:
    """The constructor takes (config, setup) and calls the base class's."""
    method = subject.build()
    if not isinstance(method, Method) or getattr(method, "setup", None) is None:
        raise Broken("__init__(config, setup) must begin with super().__init__(config, setup).")
    return f"{sum(p.numel() for p in method.parameters())} parameters with the fake network"
