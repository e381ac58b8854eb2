"""Alignment of predictions: maps, losses of both players, and whose gradient goes where."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.errors import UsageError
from udabench.method import Group, Loss, Optimizer, Panel, Scalar, Stage
from udabench.network import Head, Output
from udabench.networks.discriminator import Verdict
from udabench.parts.entropy import normalised_entropy, self_information
from udabench.parts.output_alignment import OutputAlignment, Prediction, predicted, probability
from udabench.plugins import import_file
from udabench.schedules import PolySchedule
from udabench.size import Size

METHODS = Path(__file__).parents[1] / "methods"
hand, fakes = (import_file(METHODS / name) for name in ("alignment.py", "fakes.py"))
SIZE, CLASSES = (64, 96), 5
LEVELS = (1e-3, 2e-4)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def logits(seed, scale=4.0, grid=(8, 12)):
    rng = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(2, CLASSES, *grid, generator=rng)).requires_grad_()


def prediction(seed, levels=2, valid=None):
    return Prediction(tuple(logits(10 * seed + level) for level in range(levels)), SIZE, valid)


def build(weights=LEVELS, **options):
    alignment = OutputAlignment(CLASSES, weights, width=4, **options)
    for parameter in alignment.parameters():
        nn.init.normal_(parameter, std=0.1)  # scores that differ from patch to patch
    return alignment


def learnt(alignment, source, target):
    events = list(alignment.learn(source, target))
    return hand.losses_of(events), events


# Maps


def test_self_information_by_hand():
    p = torch.tensor([0.5, 0.25, 0.25])
    found = self_information(p.log().view(1, 3, 1, 1))
    third = math.log2(3)
    assert found.flatten().tolist() == pytest.approx([0.5 / third, 0.5 / third, 0.5 / third])
    uniform = self_information(torch.zeros(1, 4, 1, 1))
    assert uniform.flatten().tolist() == pytest.approx([0.25] * 4)


def test_self_information_lies_in_0_to_1_and_sums_to_the_entropy():
    said = logits(1).detach()
    found = self_information(said)
    assert found.shape == said.shape
    assert 0 <= found.min() < found.max() <= 1
    assert found == pytest.approx(hand.information(said, said.shape[-2:]), abs=1e-6)
    assert found.sum(1) == pytest.approx(normalised_entropy(said), abs=1e-6)
    assert found.sum(1).max() <= 1 + 1e-6


@pytest.mark.parametrize("make", [probability, self_information])
def test_maps_of_sure_predictions_are_finite_in_half_precision(make):
    sure = torch.tensor([3e4, -3e4, 0.0], dtype=torch.float16).view(1, 3, 1, 1).requires_grad_()
    found = make(sure)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert sure.grad.isfinite().all()
    assert make(torch.zeros(1, 2, 1, 1, dtype=torch.float64)).dtype == torch.float64


# Losses

SPACES = {"probability": hand.probability, "self_information": hand.information}


@pytest.mark.parametrize("space", SPACES)
def test_the_segmenter_pays_for_what_does_not_pass_for_the_source(space):
    alignment, target = build(space=space), prediction(1)
    value, parts = alignment.hiding_loss(target)
    each = [
        hand.bce(hand.scores(d, SPACES[space](level, SIZE)), 0)
        for d, level in zip(alignment.discriminators, target.levels, strict=True)
    ]
    assert abs(each[0] - each[1]) > 1e-3
    assert value.item() == pytest.approx(1e-3 * each[0] + 2e-4 * each[1], rel=1e-5)
    assert list(parts) == ["adversarial", "adversarial_auxiliary"]
    assert [part.item() for part in parts.values()] == pytest.approx(each, rel=1e-5)
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("space", SPACES)
def test_each_discriminator_pays_half_for_each_domain(space):
    alignment, source, target = build(space=space), prediction(1), prediction(2)
    losses, _ = learnt(alignment, source, target)
    assert list(losses) == ["discriminator_source", "discriminator_target"]
    for (name, loss), said, label in zip(losses.items(), (source, target), (0, 1), strict=True):
        each = [
            hand.bce(hand.scores(d, SPACES[space](level, SIZE)), label) / 2
            for d, level in zip(alignment.discriminators, said.levels, strict=True)
        ]
        assert loss.value.item() == pytest.approx(sum(each), rel=1e-5), name
        assert [part.item() for part in loss.parts.values()] == pytest.approx(each, rel=1e-5)
        assert loss.trains == "discriminator"


def test_least_squares_have_the_same_labels():
    alignment, source, target = build((0.5,), form="lsgan"), prediction(1, 1), prediction(2, 1)
    here, there = (
        hand.scores(alignment.discriminators[0], hand.probability(said.levels[0], SIZE)) for said in (source, target)
    )
    value, _ = alignment.hiding_loss(target)
    assert value.item() == pytest.approx(0.5 * there.square().mean().item(), rel=1e-5)
    losses, _ = learnt(alignment, source, target)
    found = [loss.value.item() for loss in losses.values()]
    assert found == pytest.approx([here.square().mean().item() / 2, (there - 1).square().mean().item() / 2], rel=1e-5)


@pytest.mark.parametrize(("form", "middle"), [("bce", 0.0), ("lsgan", 0.5)])
def test_what_the_discriminators_got_right(form, middle, monkeypatch):
    """Main level: 3 of 4 and 4 of 4; auxiliary: 1 of 4 and 2 of 4."""
    alignment, source, target = build(form=form), prediction(1), prediction(2)
    offsets = {
        source.levels[0]: [[-1.0, -0.2, -0.1, 0.3], [0.4, 0.1, -0.1, 2.0]],
        target.levels[0]: [[0.1, 0.2, 0.4, 3.0], [0.1, -0.3, 0.2, -0.2]],
    }
    says = {key.data_ptr(): torch.tensor(rows)[:, None, None, None] + middle for key, rows in offsets.items()}

    def judge(prediction):
        return [Verdict((scores,), ()) for scores in says[prediction.levels[0].data_ptr()]]

    monkeypatch.setattr(alignment, "judge", judge)
    _, events = learnt(alignment, source, target)
    found = {event.name: event.value.item() for event in events if isinstance(event, Scalar)}
    assert found == {
        "discriminator/accuracy": pytest.approx((3 / 4 + 4 / 4) / 2),
        "discriminator/accuracy_auxiliary": pytest.approx((1 / 4 + 2 / 4) / 2),
    }


@pytest.mark.parametrize("form", ["bce", "lsgan"])
def test_pictures_of_the_main_scores(form):
    alignment, source, target = build(form=form), prediction(1), prediction(2)
    _, events = learnt(alignment, source, target)
    panels = {event.name: event.picture() for event in events if isinstance(event, Panel)}
    assert list(panels) == ["judged_source", "judged_target"]
    for picture, said in zip(panels.values(), (source, target), strict=True):
        score = hand.scores(alignment.discriminators[0], hand.probability(said.levels[0], SIZE))
        belief = score.sigmoid() if form == "bce" else score.clamp(0, 1)
        assert picture.shape == (2, *SIZE)
        assert picture[:, ::32, ::32] == pytest.approx(belief[:, 0], abs=1e-5)


# Gradients


class Game(nn.Module):
    """Two levels of one convolution, and their discriminators."""

    def __init__(self):
        super().__init__()
        self.segmenter, self.alignment = nn.Conv2d(3, 2 * CLASSES, 3, padding=1), build()
        self.images = [torch.rand(1, 3, *SIZE) for _ in range(2)]

    def see(self, domain):
        return Prediction(tuple(self.segmenter(self.images[domain]).chunk(2, 1)), SIZE)

    def step(self, batch=None, iteration=0, rng=None):
        source, target = self.see(0), self.see(1)
        value, parts = self.alignment.hiding_loss(target)
        yield Loss("target", value, parts=parts)
        yield from self.alignment.learn(source, target)


def test_each_players_losses_reach_that_player_alone():
    game, schedule = Game(), PolySchedule()
    optimizers = {
        "segmenter": Optimizer("sgd", [Group(tuple(game.segmenter.parameters()), 0.1)]),
        "discriminator": game.alignment.optimizer(1e-4, (0.9, 0.99), schedule),
    }
    built = Optimizers(Stage("play", 3, game.step, optimizers), make_scaler("float32", torch.device("cpu")))
    built.begin(0)
    for event in game.step():
        if isinstance(event, Loss):
            built.backward(event)
        if isinstance(event, Loss) and event.name == "target":
            mine = [p.grad.clone() for p in game.segmenter.parameters()]
            assert all(grad.abs().sum() > 0 for grad in mine)
            assert all(p.grad is None for p in game.alignment.parameters())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(game.segmenter.parameters(), mine, strict=True))
    assert all(p.grad.abs().sum() > 0 for p in game.alignment.parameters())


def test_discriminators_learn_from_detached_predictions():
    """Whatever a backward pass is asked for."""
    alignment, source, target = build(), prediction(1), prediction(2)
    for loss in learnt(alignment, source, target)[0].values():
        loss.value.backward()
    assert all(level.grad is None for said in (source, target) for level in said.levels)
    assert all(p.grad is not None for p in alignment.parameters())


def test_each_domains_graph_ends_before_the_next():
    """The source's loss can be stepped on before the target is judged."""
    alignment, source, target = build(), prediction(1), prediction(2)
    events = alignment.learn(source, target)
    next(events)
    with torch.no_grad():
        for parameter in alignment.parameters():
            parameter.mul_(0.5)
    after = next(events).value.item()
    expected = [
        hand.bce(hand.scores(d, hand.probability(level, SIZE)), 1) / 2
        for d, level in zip(alignment.discriminators, target.levels, strict=True)
    ]
    assert after == pytest.approx(sum(expected), rel=1e-5)


def test_the_segmenter_learns_to_hide():
    """Following the gradient makes the discriminator's scores fall: towards the source's label."""
    alignment, target = build((1.0,)), prediction(1, 1)
    before = alignment.judge(target)[0].scores[0].mean()
    (grad,) = torch.autograd.grad(alignment.hiding_loss(target)[0], target.levels)
    after = alignment.judge(target._replace(levels=(target.levels[0] - 5 * grad,)))[0].scores[0].mean()
    assert after < before


# Predictions, padding, what is declared


def test_levels_are_the_main_logits_and_auxiliary_heads():
    main, further, detail = logits(1), logits(2), logits(3)
    output = Output(main, (), (Head(detail, box=(0, 0, 8, 8)), Head(further)))
    samples = fakes.samples(CLASSES, False, 1)
    found = predicted(output, samples._replace(valid=torch.ones(2, 32, 48, dtype=torch.bool)))
    assert found.levels[0] is main
    assert found.levels[1] is further
    assert len(found.levels) == 2
    assert (found.size, found.valid.shape) == ((32, 48), (2, 32, 48))
    assert not any(level.requires_grad for level in found.detach().levels)


def test_a_level_without_a_discriminator_takes_no_part():
    alignment, target = build((1e-3,)), prediction(1, 2)
    alone = target._replace(levels=target.levels[:1])
    assert alignment.hiding_loss(target)[0].item() == alignment.hiding_loss(alone)[0].item()


@pytest.mark.parametrize("space", SPACES)
def test_padding_is_nothing_to_see(space):
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[:, 40:] = False
    alignment, whole = build((1.0,), space=space), logits(1, grid=SIZE)
    other = whole.detach().clone()
    other[:, :, 40:] = 7.0
    values = [alignment.hiding_loss(Prediction((each,), SIZE, valid))[0] for each in (whole, other)]
    assert values[0].item() == values[1].item()
    (grad,) = torch.autograd.grad(values[0], whole)
    assert grad[:, :, :40].abs().sum() > 0
    assert not grad[:, :, 40:].any()
    unpadded = alignment.hiding_loss(Prediction((whole,), SIZE))[0]
    assert values[0].item() != pytest.approx(unpadded.item(), rel=1e-4)


def test_one_adam_for_all_discriminators():
    alignment, schedule = build(), PolySchedule(power=0.9, horizon=250_000)
    found = alignment.optimizer(1e-4, (0.9, 0.99), schedule)
    assert (found.kind, found.options, found.schedule) == ("adam", {"betas": (0.9, 0.99)}, schedule)
    (group,) = found.groups
    assert (group.lr, group.weight_decay) == (1e-4, 0)
    assert {id(p) for p in group.parameters} == {id(p) for p in alignment.parameters()}
    assert len(group.parameters) == 2 * 5 * 2


def test_the_papers_discriminator():
    (discriminator,) = OutputAlignment(19, (1e-3,)).discriminators
    shapes = [tuple(layer.weight.shape) for layer in discriminator.convolutions()]
    assert shapes == [(64, 19, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 512, 4, 4)]


def test_small_crops_are_refused():
    alignment = OutputAlignment(CLASSES, (1e-3,), width=4)
    alignment.check(Size(32, 32))
    with pytest.raises(UsageError, match=r"Crops of 32x16 \(data.crop\) cannot be aligned: the discriminator"):
        alignment.check(Size(16, 32))
