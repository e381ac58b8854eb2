"""ADVENT: the game on self-information, the ensemble with direct entropy minimisation, and its rows."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from udabench_advent.method import Advent

from udabench.method import Loss
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.testing import check_method, fake_batch, fake_registry, fake_setup

fakes, hand, rows = (import_file(Path(__file__).with_name(name)) for name in ("fakes.py", "alignment.py", "rows.py"))
SIZE = (32, 48)


def prepared(method):
    for parameter in method.alignment.parameters():
        nn.init.normal_(parameter, std=0.2)
    return method


def build(**values):
    torch.manual_seed(1)
    return prepared(Advent(Advent.Config(**{"discriminator_width": 8, **values}), fakes.FakeSetup()))


def build_ensemble(**values):
    """With the registry, which knows the other method."""
    torch.manual_seed(1)
    config = Advent.Config(**{"discriminator_width": 8, "ensemble": True, **values})
    return prepared(Advent(config, fake_setup(overrides={"iterations": 7, "network.options": {"dropout": 0.0}})))


def test_the_losses_are_those_of_self_information():
    method, batch = build(adversarial_weight=0.25), fakes.batch()
    initial, twin = copy.deepcopy(method), copy.deepcopy(method.student).train()
    losses = hand.losses_of(hand.played(method, batch))
    source, target = (twin(half.image).logits for half in batch)
    supervised = F.cross_entropy(hand.at_image(source, SIZE), batch.source.label, ignore_index=255).item()
    here, there = (
        hand.scores(initial.alignment.discriminators[0], hand.information(logits, SIZE)) for logits in (source, target)
    )
    assert {name: loss.value.item() for name, loss in losses.items()} == pytest.approx(
        {
            "source": supervised,
            "target": 0.25 * hand.bce(there, 0),
            "discriminator_source": hand.bce(here, 0) / 2,
            "discriminator_target": hand.bce(there, 1) / 2,
        },
        rel=1e-5,
    )


def test_gradients_stay_with_their_player():
    method = build()

    def look(event):
        if isinstance(event, Loss) and event.trains == "segmenter":
            assert not fakes.gradients(method.alignment)

    hand.played(method, fakes.batch(), look)
    assert set(fakes.gradients(method)) == {name for name, _ in method.named_parameters()}


def test_one_network_is_the_student():
    method = build()
    assert [stage.name for stage in method.stages()] == ["adapt"]
    assert list(method.predictors()) == ["student"]
    assert "joined" not in method.state_dict()


# The ensemble


def test_the_ensemble_trains_one_network_after_the_other():
    method = build_ensemble()
    assert [(stage.name, stage.iterations) for stage in method.stages()] == [("adapt", 4), ("min_entropy", 3)]
    first, second = (
        {id(p) for optimizer in stage.optimizers.values() for group in optimizer.groups for p in group.parameters}
        for stage in method.stages()
    )
    assert not first & second
    assert second == {id(p) for p in method.other.parameters()}
    assert first | second == {id(p) for p in method.parameters()}
    for stage in (0, 1):
        kept = {name: p.detach().clone() for name, p in method.named_parameters()}
        hand.played(method, fake_batch(), stage=stage, iteration=1)
        moved = {name for name, p in method.named_parameters() if not torch.equal(p, kept[name])}
        assert all(name.startswith("other.") == (stage == 1) for name in moved)
        assert moved


def test_the_other_network_minimises_entropy_with_the_same_weights():
    method = build_ensemble(adversarial_weight=0.5, auxiliary_weight=0.125, ce_avg="all", student_batch="all")
    config = method.other.config
    assert (config.entropy_weight, config.auxiliary_weight) == (0.5, 0.125)
    assert (config.ce_avg, config.student_batch) == ("all", "all")


@torch.no_grad()
def test_the_mean_of_the_logits_is_evaluated():
    method, samples = build_ensemble().eval(), fake_batch().target
    nn.init.normal_(method.other.student.head.weight)
    first, second = (network(samples.image).logits for network in (method.student, method.other.student))
    assert not torch.allclose(first, second)
    assert list(method.predictors()) == ["mean", "advent", "min_entropy"]
    # In the first half nothing can be said of the second network.
    assert torch.equal(method.predict(samples), first)
    join = method.stages()[1].after_step
    join(1)
    assert torch.equal(method.predict(samples), first)
    join(0)
    found = {name: predict(samples) for name, predict in method.predictors().items()}
    assert found["mean"] == pytest.approx((first.double() + second.double()) / 2, abs=1e-6)
    assert torch.equal(found["advent"], first)
    assert torch.equal(found["min_entropy"], second)
    assert method.state_dict()["joined"]


# Rows

FIGURES = {
    "ensemble": {"gta5-cityscapes": {"mIoU19": 45.5}},
    "ensemble-synthia": {"synthia-cityscapes": {"mIoU16": 41.2, "mIoU13*": 48.0}},
}


def test_published_figures():
    presets = presets_of(fake_registry().methods.describe("advent"))
    assert {name: preset.published for name, preset in presets.items() if preset.published} == FIGURES
    assert {name for name, preset in presets.items() if preset.reason} == {"default", "synthia", "imagenet-coco"}


def test_the_recipe():
    config = rows.row("advent").config
    assert (config.iterations, config.optim.horizon, config.optim.power) == (120_000, 250_000, 0.9)
    assert (config.optim.kind, config.optim.lr, config.optim.head_lr_factor) == ("sgd", 2.5e-4, 10)
    assert (config.network.weights, config.evaluate.align_corners) == ("imagenet", True)
    # All four dilations.
    assert config.network.options == {"lineage": "caffe", "auxiliary": 1, "auxiliary_weight": 0.1}
    settings = config.settings
    assert (settings.adversarial_weight, settings.auxiliary_weight, settings.ensemble) == (1e-3, 2e-4, False)


def test_direct_entropy_minimisation_has_the_same_recipe():
    """So that the ensemble's second network is the one that ``min_entropy`` alone would train."""
    mine, other = (rows.row(name).config for name in ("advent", "min_entropy"))
    for part in ("network", "optim", "data", "evaluate", "iterations"):
        assert getattr(mine, part) == getattr(other, part), part
    assert other.settings.entropy_weight == mine.settings.adversarial_weight
    assert other.settings.auxiliary_weight == mine.settings.auxiliary_weight


def test_what_the_other_rows_change():
    row = partial(rows.row, "advent")
    assert (row("ensemble").config.iterations, row("ensemble").config.settings.ensemble) == (240_000, True)
    assert (row("synthia").config.iterations, row("synthia").config.optim.horizon) == (90_000, 90_000)
    both = row("ensemble-synthia").config
    assert (both.iterations, both.optim.horizon, both.settings.ensemble) == (180_000, 90_000, True)
    assert row("imagenet-coco").config.network.weights == "imagenet-coco"


@pytest.mark.parametrize("whole_runs", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ensemble", [False, True])
def test_it_passes_the_kit(whole_runs, ensemble, tmp_path):
    results = check_method("advent", fake_registry(), tmp_path, {"ensemble": ensemble}, whole_runs=whole_runs)
    assert not [result for result in results if result.failed]
