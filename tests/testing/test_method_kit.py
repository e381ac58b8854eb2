"""The kit of a method: sound ones pass, and each broken one fails the check that is meant for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from udabench.errors import PluginError, UsageError
from udabench.plugins import import_file
from udabench.testing import CheckResult, check_method, fake_registry
from udabench.testing.result import Broken, Skip
from udabench.testing.run_checks import (
    RunSubject,
    check_boundary,
    check_prepare,
    check_process,
    check_resume,
    check_target_labels,
)
from udabench.testing.server import Server
from udabench.testing.subject import Subject
from udabench.testing.trial import environment_of

STAGED = Path(__file__).with_name("staged_method.py")
broken = import_file(Path(__file__).with_name("broken_methods.py"))

BROKEN = [
    (broken.NoOrigin, "config", "Config.weight has no description or no origin"),
    (broken.LosesItsConfig, "config", "Config changes when it is written as JSON and read again: order"),
    (broken.ForgetsSuper, "builds", "must begin with super()"),
    (broken.TwoStagesOfOneName, "stages", "Two stages are called 'train'"),
    (broken.TrainsAForeignParameter, "stages", "trains a parameter that is not the method's"),
    (broken.UnknownOptimizer, "steps", "names the optimiser 'discriminator'; stage 'train' has segmenter"),
    (broken.NotANumber, "steps", "The loss 'source' of stage 'train' is nan"),
    (broken.InfiniteGradient, "steps", "gives a gradient that is not finite"),
    (broken.BackwardByHand, "steps", "Do not call backward()"),
    (broken.StepsByHand, "steps", "changes a parameter of its own optimisers inside of the step"),
    (broken.NoGenerator, "steps", "is no generator"),
    (broken.NoLoss, "steps", "yields no Loss"),
    (broken.ScalarWithAGraph, "steps", "Give it detached"),
    (broken.NumpyRandom, "randomness", "Draw from the step's 'rng'"),
    (broken.PythonRandom, "randomness", "Draw from the step's 'rng'"),
    (broken.SharedState, "randomness", "keep nothing in globals or class attributes"),
    (broken.HiddenCounter, "state", "use the step's 'iteration' instead of a counter"),
    (broken.HiddenPrototype, "state", "The prediction of 'student' is another"),
    (broken.WrongClasses, "predict", "N C h w logits with C = 19; it is (1, 13, 8, 16)"),
    (broken.LearnsWhilePredicting, "predict", "A prediction changes the state"),
]


def failures(results: list[CheckResult]) -> dict[str, str]:
    return {result.name: result.message for result in results if result.failed}


@pytest.mark.parametrize(("method", "check", "said"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_method_fails_the_check_that_is_meant_for_it(method, check, said, tmp_path):
    failed = failures(check_method(method, fake_registry(), tmp_path, whole_runs=False))
    assert list(failed) == [check]
    assert said in failed[check]


@pytest.mark.parametrize("method", [broken.Sound, "source_only", "oracle", "t2sda"], ids=str)
def test_a_sound_method_passes(method, tmp_path):
    results = check_method(method, fake_registry(), tmp_path, whole_runs=False)
    assert {result.name for result in results if result.status == "passed"} >= {"steps", "state", "predict"}
    assert not failures(results)


def test_a_method_that_uses_the_whole_contract_passes(tmp_path):
    results = {r.name: r for r in check_method("staged", fake_registry(STAGED), tmp_path, whole_runs=False)}
    assert not failures(list(results.values()))
    assert results["stages"].message == "warm (4), adapt (4)"
    for loss in ("source", "fool", "critic", "target"):
        assert f"{loss} " in results["steps"].message


@pytest.mark.slow
def test_a_method_that_uses_the_whole_contract_passes_whole_runs(tmp_path):
    results = check_method("staged", fake_registry(STAGED), tmp_path)
    assert not failures(results)
    assert results[-1].status == "passed"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(environment_of(Subject(broken.Sound, None, tmp_path_factory.mktemp("server")))) as running:
        yield running


def test_reading_the_targets_labels_is_found_out(tmp_path, server):
    subject = RunSubject(Subject(broken.ReadsTargetLabels, None, tmp_path), server)
    with pytest.raises(Broken, match=r"is another without the target's training labels. No training label"):
        check_target_labels(subject)


@pytest.mark.slow
def test_memory_outside_of_the_state_is_found_out_by_a_kill(tmp_path, server):
    subject = RunSubject(Subject(broken.HiddenMemory, None, tmp_path), server)
    assert not failures(check_method(broken.HiddenMemory, None, tmp_path / "in-process", whole_runs=False))
    with pytest.raises(Broken, match="is another after a kill in step 5 and a resume"):
        check_resume(subject)


@pytest.mark.slow
def test_a_pass_that_forgets_what_it_saw_before_a_kill_is_found_out(tmp_path, server):
    subject = RunSubject(Subject(broken.CountsWhatIsLeft, None, tmp_path), server)
    with pytest.raises(Broken, match=r"brightness.* is another after a kill behind image 3 of its passes and a resume"):
        check_prepare(subject)
    with pytest.raises(Skip, match="no stage has a prepare"):
        check_prepare(RunSubject(Subject(broken.Sound, None, tmp_path / "sound"), server))


@pytest.mark.slow
def test_what_is_handed_on_beside_the_state_is_found_out(tmp_path, server):
    subject = RunSubject(Subject(broken.ForgetsBetweenStages, None, tmp_path), server)
    with pytest.raises(Broken, match="is another after a kill before stage 'train' and a resume"):
        check_boundary(subject)


def test_one_stage_has_no_boundary(tmp_path, server):
    with pytest.raises(Skip, match="one stage only"):
        check_boundary(RunSubject(Subject("source_only", None, tmp_path), server))


def test_oracle_is_permitted_the_labels(tmp_path, server):
    with pytest.raises(Skip, match="target_labels = True"):
        check_target_labels(RunSubject(Subject("oracle", None, tmp_path), server))


@pytest.mark.slow
def test_dependence_on_the_process_is_found_out(tmp_path, server):
    with pytest.raises(Broken, match=r"is another in another interpreter \(PYTHONHASHSEED=1\)"):
        check_process(RunSubject(Subject(broken.DependsOnHash, None, tmp_path), server))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["source_only", "oracle", "t2sda"])
def test_built_in_methods_pass_the_whole_kit(method, tmp_path):
    results = check_method(method, fake_registry(), tmp_path)
    assert not failures(results)
    assert {"run", "resume", "process"} <= {result.name for result in results if result.status == "passed"}


def test_a_class_inside_a_function_is_refused(tmp_path):
    class Local(broken.Sound):
        pass

    with pytest.raises(PluginError, match="Move it to the module's top level"):
        check_method(Local, None, tmp_path)


def test_an_earlier_tests_files_are_not_mixed_with_new_ones(tmp_path):
    check_method(broken.NoOrigin, None, tmp_path)
    with pytest.raises(UsageError, match="holds the files of an earlier test"):
        check_method(broken.NoOrigin, None, tmp_path)


def test_what_needs_a_failed_check_is_skipped(tmp_path):
    results = {r.name: r for r in check_method(broken.NoOrigin, None, tmp_path)}
    assert [name for name, r in results.items() if r.failed] == ["config"]
    assert {r.blocked_by for name, r in results.items() if name != "config"} == {"config"}
