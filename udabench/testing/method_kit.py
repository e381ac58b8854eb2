"""The conformance kit of a method."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from udabench.method import Method
from udabench.registry import Registry
from udabench.testing import contract_checks as contract
from udabench.testing import run_checks as runs
from udabench.testing import step_checks as steps
from udabench.testing.result import Check, CheckResult, run_checks
from udabench.testing.run_checks import RunSubject
from udabench.testing.server import Server
from udabench.testing.subject import Subject, where_is
from udabench.testing.trial import environment_of

IN_PROCESS: tuple[Check[Subject], ...] = (
    Check("config", contract.check_config),
    Check("builds", contract.check_builds, ("config",)),
    Check("presets", contract.check_presets, ("config",)),
    Check("stages", contract.check_stages, ("builds",)),
    Check("steps", steps.check_steps, ("stages",)),
    Check("predict", steps.check_predict, ("builds",)),
    Check("randomness", steps.check_randomness, ("steps",)),
    Check("state", steps.check_state, ("steps", "predict", "randomness")),
    Check("cuda", steps.check_cuda, ("steps", "predict")),
)
WHOLE_RUNS: tuple[Check[RunSubject], ...] = (
    Check("run", runs.check_run, ("steps", "predict")),
    Check("resume", runs.check_resume, ("run", "randomness", "state")),
    Check("prepare", runs.check_prepare, ("resume",)),
    Check("boundary", runs.check_boundary, ("resume",)),
    Check("target labels", runs.check_target_labels, ("run", "randomness")),
    Check("process", runs.check_process, ("run", "randomness")),
)


def check_method(
    method: str | type[Method],
    registry: Registry | None = None,
    folder: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    whole_runs: bool = True,
) -> list[CheckResult]:
    """Run the whole conformance kit on a method; about half a minute on one core.

    Args:
        method: a name of ``registry``, or a class of a module's top level.
        registry: None: the installed plugins and the fakes (:func:`udabench.testing.fake_registry`).
        folder: where data and runs are written, and left for inspection; None: a temporary one.
        overrides: full or short keys of the configuration, where the fakes' small values do not suit the method.
        whole_runs: False: leave out what needs runs in processes of their own (seconds instead of half a minute).

    Raises:
        UsageError: an unknown name or key.
        PluginError: no method, or one that other interpreters cannot find.
    """
    if folder is not None:
        return list(method_checks(method, registry, folder, overrides, whole_runs=whole_runs))
    with tempfile.TemporaryDirectory(prefix="udabench-") as temporary:
        return list(method_checks(method, registry, Path(temporary), overrides, whole_runs=whole_runs))


def method_checks(
    method: str | type[Method],
    registry: Registry | None,
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    whole_runs: bool = True,
) -> Iterator[CheckResult]:
    """The results of :func:`check_method` as they come."""
    subject = Subject(method, registry, folder.resolve(), overrides)
    where_is(subject.method)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            done = []
            for result in run_checks(IN_PROCESS, subject):
                done.append(result)
                yield result
            if whole_runs:
                with Server(environment_of(subject)) as server:
                    yield from run_checks(WHOLE_RUNS, RunSubject(subject, server), done)
    finally:
        torch.set_num_threads(threads)
