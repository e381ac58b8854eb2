"""Self-training alone, without a method on top: the step of DAFormer."""

from pathlib import Path

import pytest
import torch

from udabench.errors import UsageError
from udabench.method import Panel
from udabench.parts.self_trainer import SelfTrainer
from udabench.parts.self_training import SelfTrainingConfig
from udabench.plugins import import_file
from udabench.size import Size

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
    assert torch.equal(shared.samples.image, fakes.batch().target.image)  # not mixed
    assert (shared.samples.label, shared.label.shape, shared.weight.shape) == (None, (2, 32, 48), (2, 32, 48))
    outputs = {name: output for loss in losses.values() for name, output in loss.outputs.items()}
    assert {name: output.logits.shape for name, output in outputs.items()} == dict.fromkeys(
        ("source", "mixed"), (2, 19, 8, 12)
    )


def test_a_loss_is_the_weighted_sum_of_its_parts():
    _, losses, _, _ = _run(feature_distance=3.0)
    parts = losses["source"].parts
    torch.testing.assert_close(losses["source"].value, parts["source"] + 3 * parts["feature_distance"])


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"ignored_bottom": 32}, "ignored_top \\+ ignored_bottom = 32 leaves nothing of images of 32 rows"),
        ({"ignored_left": 40, "ignored_right": 9}, "ignored_left \\+ ignored_right = 49 leaves nothing .* 48 columns"),
    ],
)
def test_margins_that_leave_nothing_are_refused(values, error):
    with pytest.raises(UsageError, match=error):
        _run(**values)


def test_margins_of_larger_images_count_by_the_rule():
    small_crops = fakes.FakeSetup(target_size=Size(64, 96))
    SelfTrainer(SelfTrainingConfig(ignored_bottom=64), small_crops)
    with pytest.raises(UsageError, match="leaves nothing of images of 64 rows"):
        SelfTrainer(SelfTrainingConfig(ignored_top=0, ignored_bottom=64, ignored_rule="image"), small_crops)


def test_ignored_borders_have_no_weight():
    _, _, _, shared = _run(ignored_top=2, ignored_left=3, ignored_right=1)
    counted = (shared.weight > 0).nonzero()
    assert counted.min(0).values.tolist() == [0, 2, 3]
    assert counted.max(0).values.tolist() == [1, 31, 46]


def _weight(module):
    return module.encoder[0].weight.detach().clone()


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_teacher_follows_before_the_step_or_after_it(when):
    method = SelfTrainer(SelfTrainingConfig(ignored_bottom=0, ema_update=when), fakes.FakeSetup())
    with torch.no_grad():
        method.student.encoder[0].weight.add_(1)
    start, student = _weight(method.teacher.module), _weight(method.student)
    stage = method.stages()[0]
    fakes.run_step(method, fakes.batch(), iteration=1)
    assert torch.equal(_weight(method.teacher.module), start) == (when == "after")
    if when == "after":
        with torch.no_grad():
            stage.after_step(1)
    else:
        assert stage.after_step is None
    # min(1 - 1 / 2, alpha) of the old value.
    torch.testing.assert_close(_weight(method.teacher.module), (start + student) / 2)


def test_each_cross_entropy_has_its_reduction():
    """One pixel in a hundred is unknown: dividing by the labelled ones gives more, by just that share."""
    parts = {}
    for values in ({"ce_avg": "all"}, {"ce_avg": "valid", "mixed_ce_avg": "all"}, {"ce_avg": "valid"}):
        _, losses, _, _ = _run(feature_distance=0, **values)
        parts[tuple(values.values())] = {name: loss.value.item() for name, loss in losses.items()}
    label = fakes.batch().source.label
    known = (label != 255).float().mean().item()
    everything, separate, valid = parts.values()
    assert separate["source"] == valid["source"] == pytest.approx(everything["source"] / known)
    assert separate["mixed"] == everything["mixed"] < valid["mixed"]
