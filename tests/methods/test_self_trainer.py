"""Self-training alone, without a method on top: the step of DAFormer."""

from pathlib import Path

import pytest
import torch

from udabench.errors import UsageError
from udabench.method import Panel
from udabench.parts.self_trainer import SelfTrainer
from udabench.parts.self_training import SelfTrainingConfig
from udabench.plugins import import_file

fakes = import_file(Path(__file__).with_name("fakes.py"))


def _run(**values):
    torch.manual_seed(7)
    config = SelfTrainingConfig(**({"ignored_top": 0, "ignored_bottom": 0, "threshold": 0.16} | values))
    method = SelfTrainer(config, fakes.FakeSetup())
    return method, *fakes.run_step(method, fakes.batch())


@pytest.mark.parametrize(
    ("values", "names", "parts"),
    [
        ({}, ["source", "mixed"], {"source", "feature_distance", "mixed"}),
        ({"feature_distance": 0}, ["source", "mixed"], {"source", "mixed"}),
        ({"student_batch": "mixed"}, ["source+mixed"], {"source", "feature_distance", "mixed"}),
        ({"student_batch": "all"}, ["source+mixed"], {"source", "feature_distance", "mixed"}),
    ],
)
def test_it_is_a_whole_method(values, names, parts):
    method, losses, others, shared = _run(**values)
    assert list(losses) == names
    assert {name for loss in losses.values() for name in loss.parts} == parts
    assert set(fakes.gradients(method)) == {f"student.{name}" for name, _ in method.student.named_parameters()}
    assert {event.name for event in others if isinstance(event, Panel)} >= {"source", "target", "mixed", "prediction"}
    assert shared.network is method.student
    assert (shared.samples.label, shared.label.shape, shared.weight.shape) == (None, (2, 32, 48), (2, 32, 48))
    outputs = {name: output for loss in losses.values() for name, output in loss.outputs.items()}
    assert {name: output.logits.shape for name, output in outputs.items()} == dict.fromkeys(
        ("source", "mixed"), (2, 19, 8, 12)
    )


def test_a_loss_is_the_weighted_sum_of_its_parts():
    _, losses, _, _ = _run(feature_distance=3.0)
    parts = losses["source"].parts
    torch.testing.assert_close(losses["source"].value, parts["source"] + 3 * parts["feature_distance"])


def test_margins_that_leave_nothing_are_refused():
    with pytest.raises(UsageError, match="leave nothing of a crop of 32 rows"):
        _run(ignored_bottom=32)
