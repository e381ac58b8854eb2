"""The contract of engines that are trained: ranges, sizes, panels, and what the discriminators pay."""

import pytest
import torch
from learnt_play import batch, opened, play, rng
from torch import nn

from udabench.errors import UsageError
from udabench.method import Context, Group, Optimizer, Panel, Scalar
from udabench.networks.discriminator import Discriminator, Verdict
from udabench.networks.generator import Generator
from udabench.size import Size
from udabench.translate.apply import cut, translate_source
from udabench.translate.bounds import all_within, within
from udabench.translate.cyclegan import CycleGAN
from udabench.translate.learnt import LearntTranslator, loss_of
from udabench.translate.unit import UNIT

SIZE = Size(8, 12)


class Scaled(Generator):
    """Multiplies by a weight."""

    def __init__(self, weight):
        convolution = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        nn.init.constant_(convolution.weight, weight)
        super().__init__(convolution)
        self.cell, self.smallest = 4, 8


class Mean(Discriminator):
    """Two scales: the image's mean, and three times that, each plus a bias."""

    def __init__(self, bias):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x):
        mean = x.mean((1, 2, 3)).view(-1, 1, 1, 1)
        return Verdict((mean + self.bias, 3 * mean + self.bias), ())

    def grids(self, size):
        return ((Size(size.height // 4, size.width // 4), Size(size.height // 8, size.width // 8)),)


class Halver(LearntTranslator):
    """The target's look is half as bright as the source's, around 0."""

    def __init__(self, bias=0.0):
        super().__init__({"target": Scaled(0.5), "source": Scaled(2.0)}, {"target": Mean(bias), "source": Mean(-bias)})
        self.seen = []

    def turn(self, image, look):
        self.seen.append(image)
        return self.generators[look](image)

    def play(self, real, rng):
        self.real = real
        yield loss_of("generators", {"all": self.turn(real["source"], "target").mean()})
        yield from self.discriminate(real, real)

    def optimizer(self, player):
        return Optimizer("sgd", [Group(tuple(player.parameters()), 0.1)])


def random(*shape, seed=0):
    return torch.rand(*shape, generator=rng(seed))


def test_networks_see_signed_images_and_the_outside_never_does():
    engine, image = Halver(), random(2, 3, *SIZE)
    there, back = engine(image, None, rng()), engine.back(image, rng())
    assert [seen.min() < -0.9 and seen.max() > 0.9 for seen in engine.seen] == [True, True]
    torch.testing.assert_close(engine.seen[0], 2 * image - 1)
    torch.testing.assert_close(there, (image - 0.5) / 2 + 0.5)
    torch.testing.assert_close(back, (image - 0.5) * 2 + 0.5)


def test_what_low_precision_made_comes_back_as_the_image_came():
    engine = Halver()
    engine.turn = lambda image, look: image.bfloat16()
    image = torch.full((1, 3, *SIZE), 0.5 + 1 / 512)
    assert engine(image, None, rng()).dtype == torch.float32
    assert engine.back(image, rng()).flatten()[0].item() == 0.5 + 1 / 512


def test_once_trained_it_needs_no_target_and_takes_the_context():
    engine, samples = Halver(), batch(SIZE)
    assert not engine.paired
    image = random(2, 3, 16, 24)
    context = Context(image, torch.tensor([0, 8]), torch.tensor([5, 12]))
    source = samples.source._replace(image=cut(context, SIZE), context=context)
    found = translate_source(engine, samples._replace(source=source, target=None), rng())
    torch.testing.assert_close(found, engine(source.image, None, rng()))


def test_sizes_that_do_not_fit_are_refused():
    engine = Halver()
    for translated in (lambda x: engine(x, None, rng()), lambda x: engine.back(x, rng())):
        with pytest.raises(UsageError, match=r"Halver cannot translate: .* multiples of 4, but the map is 14x8"):
            translated(random(1, 3, 8, 14))
        with pytest.raises(UsageError, match="at least 8"):
            translated(random(1, 3, 4, 8))
    assert engine.why_not(Size(16, 8)) is None
    assert "multiples" in engine.why_not(Size(18, 16))
    engine.discriminators["source"].grids = lambda size: ((Size(2, 2), Size(0, 1)),)
    assert "discriminator" in engine.why_not(Size(16, 8))
    assert engine(random(1, 3, 16, 8), None, rng()).shape == (1, 3, 16, 8)
    with pytest.raises(UsageError, match=r"Crops of 8x16 \(data.crop\) cannot train Halver: the discriminator"):
        engine.prepare(Size(16, 8))


def test_a_step_needs_both_domains_and_no_label():
    engine, samples = Halver(), batch(SIZE)
    for lacking in (samples._replace(source=None), samples._replace(target=None)):
        with pytest.raises(ValueError, match="both domains"):
            next(engine.step(lacking, 0, rng()))
    unlabelled = samples._replace(source=samples.source._replace(label=None))
    assert [type(event) for event in play(engine, unlabelled)] == [type(event) for event in play(engine, samples)]
    for domain in ("source", "target"):
        torch.testing.assert_close(engine.real[domain], 2 * getattr(samples, domain).image - 1)


def test_panels_show_both_ways_there_and_back():
    engine, samples = Halver(), batch(SIZE)
    panels = {event.name: event.picture for event in play(engine, samples) if isinstance(event, Panel)}
    engine = Halver().requires_grad_(False)
    pictures = {e.name: e.picture() for e in engine.step(samples, 0, rng()) if isinstance(e, Panel)}
    assert list(pictures) == [
        "source", "source_as_target", "source_cycled", "target", "target_as_source", "target_cycled",
    ]  # fmt: skip
    assert list(panels) == list(pictures)
    source, target = samples.source.image, samples.target.image
    for name, expected in {
        "source": source,
        "source_as_target": source / 2 + 0.25,
        "source_cycled": source,
        "target": target,
        "target_as_source": 2 * target - 0.5,
        "target_cycled": target,
    }.items():
        torch.testing.assert_close(pictures[name], expected)


def test_what_the_discriminators_pay_by_hand():
    """Scores of two scales: the mean and its triple, plus the bias, 0.25 of the target's and -0.25 of the source's."""
    engine = Halver(bias=0.25)
    real = {"source": torch.full((1, 3, 8, 8), 0.5), "target": torch.full((1, 3, 8, 8), 0.5)}
    made = {domain: torch.zeros(1, 3, 8, 8, requires_grad=True) for domain in real}
    loss, *rest = engine.discriminate(real, made, weight=3.0)
    # Real scores 0.75 and 1.75, made 0.25 twice; of the source's 0.25 and 1.25, made -0.25 twice.
    target = ((0.25**2 + 0.75**2) + 2 * 0.25**2) / 2
    source = ((0.75**2 + 0.25**2) + 2 * 0.25**2) / 2
    assert {name: value.item() for name, value in loss.parts.items()} == {"source": 3 * source, "target": 3 * target}
    assert loss.value.item() == 3 * (source + target)
    assert (loss.name, loss.trains) == ("discriminators", "discriminators")
    # Right where real ones are above 0.5 and made ones below: the source's 0.25 is not.
    assert {event.name: event.value.item() for event in rest} == {
        "discriminator/accuracy_source": 0.75,
        "discriminator/accuracy_target": 1.0,
    }
    assert all(isinstance(event, Scalar) and not event.value.requires_grad for event in rest)
    loss.value.backward()
    assert all(image.grad is None for image in made.values())
    assert next(engine.discriminate(real, made)).value.item() == source + target


def test_the_sum_trains_its_player_and_parts_are_detached():
    terms = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor(2.0, requires_grad=True)}
    loss = loss_of("generators", terms)
    assert (loss.name, loss.trains, loss.value.item()) == ("generators", "generators", 3.5)
    assert loss.value.requires_grad
    assert {name: (part.item(), part.requires_grad) for name, part in loss.parts.items()} == {
        "a": (1.5, False), "b": (2.0, False),
    }  # fmt: skip


def test_each_player_has_an_optimiser_of_all_its_networks():
    engine = Halver()
    declared = engine.optimizers()
    for player in ("generators", "discriminators"):
        parameters = [p for group in declared[player].groups for p in group.parameters]
        assert {id(p) for p in parameters} == {id(p) for p in getattr(engine, player).parameters()}
    assert set(declared) == set(opened(engine).built) == {"generators", "discriminators"}


def test_bounds_are_named():
    assert within("x", 2, 1, 2) == 2
    all_within("engine", 0, 1, a=0.0, b=1)
    with pytest.raises(UsageError, match=r"engine's b = 1\.5: it must lie in 0 to 1"):
        all_within("engine", 0, 1, a=0.5, b=1.5)
    with pytest.raises(UsageError, match="a = nan"):
        all_within("engine", 0, 1, a=float("nan"))


OUT_OF_BOUNDS = {
    CycleGAN: {
        "width": 0, "blocks": 0, "discriminator_width": 2000, "discriminator_layers": 7, "pool": -1,
        "cycle_source": -1.0, "cycle_target": float("nan"), "identity": -0.1, "lr": 2.0,
    },
    UNIT: {
        "width": 0, "blocks": 0, "discriminator_width": 0, "discriminator_layers": 7, "scales": 0, "adversarial": -1.0,
        "reconstruction": -1.0, "kl": -1.0, "cycle": -1.0, "cycle_kl": -1.0, "perceptual": -1.0, "lr": -1.0,
        "decay_every": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "option", "value"), [(e, *bad) for e, options in OUT_OF_BOUNDS.items() for bad in options.items()]
)
def test_options_out_of_bounds(engine, option, value):
    with pytest.raises(UsageError, match=rf"{engine.__name__.lower()}'s {option} = .*must lie in"):
        engine(**{option: value})


@pytest.mark.parametrize(
    ("engine", "size", "reason"),
    [
        (CycleGAN, (33, 32), "multiples of 4"), (CycleGAN, (32, 34), "multiples of 4"), (CycleGAN, (20, 32), "patches"),
        (UNIT, (130, 128), "multiples of 4"), (UNIT, (128, 129), "multiples of 4"), (UNIT, (64, 64), "scale 3"),
    ],
)  # fmt: skip
def test_crops_that_do_not_fit(engine, size, reason):
    """The smallest that fit leave a discriminator's last hidden layer two positions."""
    small = engine(width=1, blocks=1, discriminator_width=1)
    assert reason in small.why_not(Size(*size))
    with pytest.raises(UsageError, match=reason):
        small.prepare(Size(*size))
    assert small.why_not({CycleGAN: Size(24, 24), UNIT: Size(128, 64)}[engine]) is None
