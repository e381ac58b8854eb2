"""DACS: one step against its equations, worked out in float64; the order of its updates; its values."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from udabench_dacs.config import DacsConfig
from udabench_dacs.method import Dacs

from udabench.method import Panel
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.size import Size

fakes = import_file(Path(__file__).with_name("fakes.py"))
rows = import_file(Path(__file__).with_name("rows.py"))
PLAIN = {"jitter_chance": 0, "blur_chance": 0, "threshold": 0.16}


def _opinion(network, image):
    """Probabilities at the image's size, norms by the batch, in float64."""
    logits = copy.deepcopy(network).double().train()(image.double()).logits
    return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def step():
    """Network before the step, batch, losses by name, and pictures by name."""
    torch.manual_seed(7)
    method, data = Dacs(DacsConfig(**PLAIN), fakes.FakeSetup()), fakes.batch()
    before = copy.deepcopy(method.student)
    losses, others, _ = fakes.run_step(method, data)
    pictures = {event.name: event.picture() for event in others if isinstance(event, Panel)}
    return before, data, losses, pictures


def test_the_source_term_is_the_mean_over_labelled_pixels(step):
    network, data, losses, _ = step
    logits = _opinion(network, data.source.image)
    expected = F.cross_entropy(logits, data.source.label, ignore_index=255)
    assert losses["source"].value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_mixed_term_is_the_weighted_mean_over_all_pixels(step):
    network, data, losses, pictures = step
    confidence, label = _opinion(network, data.target.image).softmax(1).max(1)
    share = (confidence >= 0.16).double().mean()
    assert 0 < share < 1
    pasted = (pictures["mixed"] == data.source.image).all(1)
    mixed = torch.where(pasted, data.source.label, label)
    assert torch.equal(pictures["mixed_label"], mixed)
    weight = torch.where(pasted, 1.0, share)
    each = F.cross_entropy(_opinion(network, pictures["mixed"]), mixed, ignore_index=255, reduction="none")
    assert losses["mixed"].value.item() == pytest.approx((each * weight).mean().item(), rel=1e-5)


def test_half_of_the_values_of_each_image_are_pasted(step):
    _, data, _, pictures = step
    pasted = (pictures["mixed"] == data.source.image).all(1)
    for label, mask in zip(data.source.label, pasted, strict=True):
        values = label.unique()
        inside = label[mask].unique()
        assert len(inside) == (len(values) + 1) // 2
        assert torch.equal(torch.isin(label, inside), mask)


def test_there_is_no_more_than_the_two_terms(step):
    _, _, losses, _ = step
    assert [(name, set(loss.parts)) for name, loss in losses.items()] == [("source", {"source"}), ("mixed", {"mixed"})]


def test_the_teacher_follows_the_optimiser_and_is_in_training():
    method = Dacs(DacsConfig(), fakes.FakeSetup()).train()
    assert method.stages()[0].after_step == method.follow
    assert method.teacher.module.encoder[1].training
    method.student.head.weight.data.add_(1)
    method.follow(0)
    assert torch.equal(method.teacher.module.head.weight, method.student.head.weight)
    method.student.head.weight.data.add_(1)
    method.follow(1000)
    torch.testing.assert_close(
        method.student.head.weight - method.teacher.module.head.weight, torch.tensor(0.99).expand(19, 8, 1, 1)
    )


METHOD = rows.REGISTRY.methods.describe("dacs")


def _row(preset):
    return rows.row("dacs", preset).config


def test_the_default_is_the_recipe_of_the_code():
    row = _row(None)
    assert (row.optim.kind, row.optim.lr, row.optim.weight_decay, row.optim.power) == ("sgd", 2.5e-4, 5e-4, 0.9)
    assert (row.optim.head_lr_factor, row.optim.warmup, row.iterations) == (10, 0, 250_000)
    assert (row.data.crop, row.data.flip, row.data.sampler, row.data.crop_max_ratio) == (
        Size(512, 512),
        0,
        "uniform",
        1,
    )
    assert (row.network.weights, row.network.options["lineage"]) == ("coco", "caffe")
    settings = row.settings
    assert (settings.ema, settings.ema_update, settings.teacher_norms, settings.copy_buffers) == (
        0.99, "after", "train", False
    )  # fmt: skip
    assert (settings.jitter_strength, settings.mix_scope, settings.weight_scope) == (0.25, "image", "batch")
    assert (settings.ce_avg, settings.mixed_ce_avg) == ("valid", "all")
    assert (settings.feature_distance, *settings.margins) == (0, 0, 0, 0, 0)


def test_figures():
    assert presets_of(METHOD)["default"].published == {
        "gta5-cityscapes": {"mIoU19": 52.1},
        "synthia-cityscapes": {"mIoU16": 48.3, "mIoU13*": 54.8},
    }


def test_quick_keeps_the_components_and_the_common_recipe():
    row = _row("quick")
    assert (row.network.name, row.network.weights, row.network.options) == ("lite0", "imagenet", {})
    assert (row.optim.kind, row.iterations, row.data.flip) == ("adamw", 450, 0.5)
    assert (row.settings.ema, row.settings.ema_update, row.settings.mix_scope) == (0.99, "after", "image")
    assert (row.settings.student_batch, row.settings.teacher_norms) == ("all", "batch")
    assert (row.settings.ce_avg, row.settings.mixed_ce_avg) == ("valid", "valid")
