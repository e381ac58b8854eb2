"""AdaptSegNet: its losses at one and two levels, the order of a step, and its rows."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from udabench_adaptseg.method import AdaptSeg

from udabench.errors import UsageError
from udabench.method import Loss, Panel, Scalar, Update
from udabench.network import Head
from udabench.networks.build import build_network
from udabench.parts.output_aligner import has_auxiliary_head
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.schedules import PolySchedule
from udabench.size import Size
from udabench.testing import check_method, fake_registry

fakes, hand, rows = (import_file(Path(__file__).with_name(name)) for name in ("fakes.py", "alignment.py", "rows.py"))
SIZE = (32, 48)
NAMES = ["source", "target", "discriminator_source", "discriminator_target"]


class TwoLevels(fakes.TinyNetwork):
    """With an auxiliary head, as the networks of the papers are built."""

    def __init__(self, classes):
        super().__init__(classes)
        self.auxiliary_head = nn.Conv2d(8, classes, 1)
        with torch.no_grad():
            self.auxiliary_head.weight.mul_(20)

    def decode(self, features):
        return super().decode(features)._replace(heads=(Head(self.auxiliary_head(features[-1]), weight=0.1),))

    def parameter_groups(self):
        groups = super().parameter_groups()
        return {**groups, "head": [*groups["head"], *self.auxiliary_head.parameters()]}


class Setup(fakes.FakeSetup):
    kind = fakes.TinyNetwork
    schedule = PolySchedule(power=0.9, horizon=250)

    def network(self, weights=None, options=None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.kind(len(self.classes))

    def segmenter(self, network, *heads):
        return replace(super().segmenter(network, *heads), schedule=self.schedule)


class TwoLevelSetup(Setup):
    kind = TwoLevels


def build(setup=Setup, **values):
    torch.manual_seed(1)
    method = AdaptSeg(AdaptSeg.Config(**{"discriminator_width": 8, **values}), setup())
    for parameter in method.alignment.parameters():
        nn.init.normal_(parameter, std=0.2)
    return method


def said(method, batch):
    """Main and auxiliary logits of a twin, by domain, as the step's own passes give them."""
    twin = copy.deepcopy(method.student).train()
    outputs = [twin(half.image) for half in batch]
    return [[output.logits, *(head.logits for head in output.heads)] for output in outputs]


def judged(method, logits, label):
    """The loss of each level's discriminator for a label."""
    pairs = zip(method.alignment.discriminators, logits, strict=False)
    return [hand.bce(hand.scores(d, hand.probability(level, SIZE)), label) for d, level in pairs]


def cross_entropy(logits, label):
    return F.cross_entropy(hand.at_image(logits, SIZE), label, ignore_index=255).item()


def test_the_losses_of_one_level():
    method, batch = build(adversarial_weight=0.25), fakes.batch()
    source, target = said(method, batch)
    initial = copy.deepcopy(method)
    losses = hand.losses_of(hand.played(method, batch))
    assert list(losses) == NAMES
    assert losses["source"].value.item() == pytest.approx(cross_entropy(source[0], batch.source.label), rel=1e-5)
    (hidden,), (here,), (there,) = (judged(initial, *each) for each in ((target, 0), (source, 0), (target, 1)))
    assert losses["target"].value.item() == pytest.approx(0.25 * hidden, rel=1e-5)
    assert losses["discriminator_source"].value.item() == pytest.approx(here / 2, rel=1e-5)
    assert losses["discriminator_target"].value.item() == pytest.approx(there / 2, rel=1e-5)
    assert [losses[name].trains for name in NAMES] == ["segmenter"] * 2 + ["discriminator"] * 2


def test_the_losses_of_two_levels():
    method, batch = build(TwoLevelSetup), fakes.batch()
    source, target = said(method, batch)
    initial = copy.deepcopy(method)
    losses = hand.losses_of(hand.played(method, batch))
    supervised = [cross_entropy(level, batch.source.label) for level in source]
    assert losses["source"].value.item() == pytest.approx(supervised[0] + 0.1 * supervised[1], rel=1e-5)
    hidden = judged(initial, target, 0)
    assert losses["target"].value.item() == pytest.approx(1e-3 * hidden[0] + 2e-4 * hidden[1], rel=1e-5)
    assert losses["target"].parts["adversarial_auxiliary"].item() == pytest.approx(hidden[1], rel=1e-5)
    assert losses["discriminator_source"].value.item() == pytest.approx(sum(judged(initial, source, 0)) / 2, rel=1e-5)
    assert losses["discriminator_target"].value.item() == pytest.approx(sum(judged(initial, target, 1)) / 2, rel=1e-5)


def test_least_squares():
    method, batch = build(gan="lsgan", adversarial_weight=0.25), fakes.batch()
    logits = said(method, batch)
    here, there = (hand.scores(method.alignment.discriminators[0], hand.probability(each[0], SIZE)) for each in logits)
    losses = hand.losses_of(hand.played(method, batch))
    expected = [0.25 * there.square().mean(), here.square().mean() / 2, (there - 1).square().mean() / 2]
    found = [losses[name].value.item() for name in NAMES[1:]]
    assert found == pytest.approx([value.item() for value in expected], rel=1e-5)


@pytest.mark.parametrize(
    ("setup", "weight", "levels"), [(TwoLevelSetup, 2e-4, 2), (TwoLevelSetup, 0, 1), (Setup, 2e-4, 1)]
)
def test_levels(setup, weight, levels):
    """A second one needs a head, and a weight."""
    method = build(setup, auxiliary_weight=weight)
    assert len(method.alignment.discriminators) == levels
    losses = hand.losses_of(hand.played(method, fakes.batch()))
    assert len(losses["target"].parts) == levels


@pytest.mark.parametrize("passes", ["separate", "all"])
@pytest.mark.parametrize("setup", [Setup, TwoLevelSetup])
def test_gradients_stay_with_their_player(setup, passes):
    method, batch = build(setup, student_batch=passes), fakes.batch()
    kept = {}

    def look(event):
        if isinstance(event, Loss) and event.trains == "segmenter":
            assert not fakes.gradients(method.alignment)
            kept.update({name: grad.clone() for name, grad in fakes.gradients(method.student).items()})
        elif isinstance(event, Loss):
            found = fakes.gradients(method.student)
            assert set(found) == set(kept)
            assert all(torch.equal(found[name], grad) for name, grad in kept.items())

    hand.played(method, batch, look)
    assert set(kept) == {name for name, _ in method.student.named_parameters()}
    assert set(fakes.gradients(method.alignment)) == {name for name, _ in method.alignment.named_parameters()}


def test_the_adversarial_loss_moves_the_segmenter():
    """What it adds to the gradient is its own, computed by autograd on a twin."""
    method, batch = build(adversarial_weight=5.0), fakes.batch()
    twin = copy.deepcopy(method)
    seen = []

    def look(event):
        if isinstance(event, Loss) and event.trains == "segmenter":
            seen.append(method.student.head.weight.grad.clone())

    hand.played(method, batch, look)
    twin.student.train()
    twin.student(batch.source.image)
    logits = F.interpolate(twin.student(batch.target.image).logits, SIZE, mode="bilinear")
    x = logits.softmax(1)
    *hidden, last = twin.alignment.discriminators[0].convolutions()
    for layer in hidden:
        x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, 2, 1), 0.2)
    score = F.conv2d(x, last.weight, last.bias, 2, 1)
    (expected,) = torch.autograd.grad(5 * F.softplus(score).mean(), twin.student.head.weight)
    assert seen[1] - seen[0] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_order_of_a_step():
    """The segmenter's losses, then the discriminators' on the same two passes; nobody steps before the end."""
    method, batch = build(), fakes.batch()
    weights = {name: p.detach().clone() for name, p in method.named_parameters()}
    passes, inputs = [], []
    method.student.register_forward_hook(lambda module, args, output: passes.append(output.logits))
    method.alignment.discriminators[0].register_forward_hook(lambda module, args, output: inputs.append(args[0]))

    def look(event):
        assert all(torch.equal(p, weights[name]) for name, p in method.named_parameters())

    events = hand.played(method, batch, look)
    assert [event.name for event in events if isinstance(event, Loss)] == NAMES
    assert not any(isinstance(event, Update) for event in events)
    assert len(passes) == 2
    source, target = (hand.probability(logits, SIZE) for logits in passes)
    for seen, expected, graph in zip(inputs, (target, source, target), (True, False, False), strict=True):
        assert seen.detach() == pytest.approx(expected, abs=1e-6)
        assert seen.requires_grad == graph
    assert not any(torch.equal(p, weights[name]) for name, p in method.named_parameters())


def test_both_players_are_on_one_schedule():
    method = build()
    (stage,) = method.stages()
    discriminator = stage.optimizers["discriminator"]
    assert (discriminator.kind, discriminator.options["betas"]) == ("adam", (0.9, 0.99))
    assert [group.lr for group in discriminator.groups] == [1e-4]
    factors = {name: each.schedule.factor(100, stage.iterations) for name, each in stage.optimizers.items()}
    assert factors == {"segmenter": pytest.approx(0.6**0.9), "discriminator": pytest.approx(0.6**0.9)}


def test_what_is_logged():
    events = hand.played(build(TwoLevelSetup), fakes.batch())
    scalars = {event.name: event.value for event in events if isinstance(event, Scalar)}
    assert list(scalars) == ["discriminator/accuracy", "discriminator/accuracy_auxiliary"]
    assert all(0 <= value <= 1 for value in scalars.values())
    pictures = {event.name: event.picture() for event in events if isinstance(event, Panel)}
    assert {name: picture.dim() for name, picture in pictures.items()} == {
        "judged_source": 3, "judged_target": 3, "target": 4, "entropy": 3, "prediction": 3,
    }  # fmt: skip
    assert {picture.shape[-2:] for picture in pictures.values()} == {SIZE}


def test_one_pass_for_both_domains():
    losses = hand.losses_of(hand.played(build(student_batch="all"), fakes.batch()))
    assert list(losses) == ["source+target", *NAMES[2:]]
    parts = losses["source+target"].parts
    expected = parts["source"].item() + 1e-3 * parts["adversarial"].item()
    assert losses["source+target"].value.item() == pytest.approx(expected)


def test_outer_methods_get_both_domains_outputs():
    losses = hand.losses_of(hand.played(build(), fakes.batch()))
    found = {name for loss in losses.values() for name in loss.outputs}
    assert found == set(AdaptSeg.outputs) == {"source", "target"}


def test_crops_that_are_too_small():
    with pytest.raises(UsageError, match="cannot be aligned"):
        AdaptSeg(AdaptSeg.Config(), Setup(crop=Size(16, 16)))


# Rows

FIGURES = {
    "default": {"gta5-cityscapes": {"mIoU19": 42.4}, "synthia-cityscapes": {"mIoU13*": 46.7}},
    "single": {"synthia-cityscapes": {"mIoU13*": 45.9}},
    "vgg16": {"gta5-cityscapes": {"mIoU19": 35.0}},
    "proda-warmup": {"gta5-cityscapes": {"mIoU19": 43.3}},
}


def test_published_figures():
    presets = presets_of(fake_registry().methods.describe("adaptseg"))
    assert {name: preset.published for name, preset in presets.items() if preset.published} == FIGURES
    assert {name for name, preset in presets.items() if preset.reason} == {"imagenet", "smaller-weights"}


def test_the_recipe():
    config = rows.row("adaptseg").config
    assert (config.iterations, config.optim.horizon, config.optim.power) == (150_000, 250_000, 0.9)
    assert (config.optim.kind, config.optim.lr, config.optim.head_lr_factor) == ("sgd", 2.5e-4, 10)
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.warmup) == (0.9, 5e-4, 0)
    assert (config.data.source_batch, config.data.target_batch, config.data.flip) == (1, 1, 0)
    assert (config.network.weights, config.evaluate.align_corners) == ("imagenet-coco", True)
    assert config.network.options == {
        "lineage": "caffe", "dilations": "adaptsegnet-legacy", "auxiliary": 1, "auxiliary_weight": 0.1,
    }  # fmt: skip
    settings = config.settings
    assert (settings.adversarial_weight, settings.auxiliary_weight) == (1e-3, 2e-4)
    assert (settings.discriminator_lr, settings.discriminator_betas, settings.discriminator_width) == (
        1e-4, (0.9, 0.99), 64,
    )  # fmt: skip
    assert (settings.gan, settings.ce_avg, settings.student_batch) == ("bce", "valid", "separate")


def test_what_the_other_rows_change():
    single, vgg, warmup = (rows.row("adaptseg", name).config for name in ("single", "vgg16", "proda-warmup"))
    assert single.network.options["auxiliary"] == 0
    assert (vgg.network.options, warmup.network.options) == ({"lineage": "caffe"}, {"lineage": "proda"})
    assert single.settings.auxiliary_weight == vgg.settings.auxiliary_weight == 0
    assert (vgg.network.name, vgg.optim.kind, vgg.optim.step_every) == ("vgg16-fcn8s", "adam", 50_000)
    assert vgg.settings.adversarial_weight == 1e-4
    assert (warmup.settings.gan, warmup.settings.adversarial_weight) == ("lsgan", 0.01)
    assert rows.row("adaptseg", "imagenet").config.network.weights == "imagenet"
    smaller = rows.row("adaptseg", "smaller-weights").config.settings
    assert (smaller.adversarial_weight, smaller.auxiliary_weight) == (5e-4, 5e-5)


@pytest.mark.parametrize(
    ("preset", "levels"), [("default", 2), ("single", 1), ("vgg16", 1), ("imagenet", 2), ("proda-warmup", 1)]
)
def test_the_networks_of_the_rows(preset, levels):
    """On no device: shapes alone."""
    network = rows.row("adaptseg", preset).config.network
    with torch.device("meta"):
        built = build_network(rows.REGISTRY, network.name, 19, "none", network.options)
    assert 1 + has_auxiliary_head(built) == levels


@pytest.mark.parametrize("whole_runs", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_passes_the_kit(whole_runs, tmp_path):
    results = check_method("adaptseg", fake_registry(), tmp_path, whole_runs=whole_runs)
    assert not [result for result in results if result.failed]
