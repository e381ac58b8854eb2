"""Adversarial losses by hand, whose gradient goes where, and the pool of made images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.method import Group, Loss, Optimizer, Stage
from udabench.networks.discriminator import MultiScaleDiscriminator, PatchDiscriminator, Verdict
from udabench.networks.generator import GlobalGenerator
from udabench.parts.adversarial import (
    Form,
    ImagePool,
    accuracy,
    discriminator_loss,
    feature_matching,
    generator_loss,
    judging_loss,
)
from udabench.size import Size


def verdict(*scales: list[float], features: list[list[list[float]]] | None = None) -> Verdict:
    scores = tuple(torch.tensor(scale, requires_grad=True).view(1, 1, 1, -1) for scale in scales)
    maps = [[torch.tensor(layer, requires_grad=True).view(1, 1, 1, -1) for layer in each] for each in features or []]
    return Verdict(scores, tuple(tuple(each) for each in maps))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


REAL, FAKE = verdict([2.0, 0.5], [-1.0]), verdict([-2.0, 1.0], [0.25])


@pytest.mark.parametrize(
    ("form", "real", "fake", "made"),
    [
        # -log sigmoid(x) = softplus(-x); -log(1 - sigmoid(x)) = softplus(x)
        ("bce", (softplus(-2) + softplus(-0.5)) / 2 + softplus(1), (softplus(-2) + softplus(1)) / 2 + softplus(0.25),
         (softplus(2) + softplus(-1)) / 2 + softplus(-0.25)),
        ("lsgan", (1 + 0.25) / 2 + 4, (4 + 1) / 2 + 0.0625, (9 + 0) / 2 + 0.5625),
        ("hinge", (0 + 0.5) / 2 + 2, (0 + 2) / 2 + 1.25, (2 - 1) / 2 - 0.25),
    ],
)  # fmt: skip
def test_each_form_by_hand(form: Form, real: float, fake: float, made: float) -> None:
    assert judging_loss(REAL, True, form).item() == pytest.approx(real)
    assert judging_loss(FAKE, False, form).item() == pytest.approx(fake)
    assert discriminator_loss(REAL, FAKE, form).item() == pytest.approx((real + fake) / 2)
    assert generator_loss(FAKE, form).item() == pytest.approx(made)


def test_large_scores_stay_finite_in_half_precision() -> None:
    huge = Verdict((torch.full((1, 1, 1, 1), 6e4, dtype=torch.float16),), ())
    assert judging_loss(huge, False, "bce").item() == pytest.approx(6e4, rel=1e-3)
    assert judging_loss(huge, False, "lsgan").item() == pytest.approx(3.6e9, rel=1e-2)


def test_accuracy_by_hand() -> None:
    """Right: both of the first real scale, none of the second; one of two of the first fake scale, none of the
    second. Means over scales: (1 + 0 + 0.5 + 0) / 4. Least squares divide at 0.5."""
    assert accuracy(REAL, FAKE).item() == pytest.approx(0.375)
    assert accuracy(verdict([0.6, 0.4]), verdict([0.4, 0.4]), "lsgan").item() == pytest.approx(0.75)


def test_feature_matching_by_hand() -> None:
    """Two scales of two hidden layers: 4 / 2 / 2 times the sum of mean differences 1.5 + 0 + 2 + 1; the goal fixed."""
    fake = verdict([9.0], [9.0], features=[[[0.0, 1.0], [5.0]], [[2.0], [1.0]]])
    real = verdict([0.0], [0.0], features=[[[1.0, 3.0], [5.0]], [[0.0], [2.0]]])
    loss = feature_matching(fake, real)
    assert loss.item() == pytest.approx(4.5)
    assert feature_matching(fake, real, factor=1).item() == pytest.approx(4.5 / 4)
    goals = [layer for each in real.features for layer in each]
    assert torch.autograd.grad(loss, goals, allow_unused=True) == (None,) * 4


def test_pix2pixhds_factor() -> None:
    """Its options: three strided layers, hence four hidden ones: 4 / (3 + 1) each, over the number of scales."""
    module = MultiScaleDiscriminator(lambda: PatchDiscriminator(1, width=1), scales=2)
    fake, real = module(torch.rand(1, 1, 32, 32)), module(torch.rand(1, 1, 32, 32))
    by_hand = sum(
        (a - b).abs().mean().item() * 4 / (3 + 1) / 2
        for made, goal in zip(fake.features, real.features, strict=True)
        for a, b in zip(made, goal, strict=True)
    )
    assert feature_matching(fake, real).item() == pytest.approx(by_hand)


# Whose gradient goes where


def players() -> tuple[GlobalGenerator, MultiScaleDiscriminator, Optimizers]:
    generator = GlobalGenerator(2, width=2, downs=1, blocks=1)
    discriminator = MultiScaleDiscriminator(lambda: PatchDiscriminator(5, width=2, layers=1), scales=2)
    named = {
        "generator": Optimizer("adam", [Group(tuple(generator.parameters()), 1e-3)]),
        "discriminator": Optimizer("adam", [Group(tuple(discriminator.parameters()), 1e-3)]),
    }
    optimizers = Optimizers(Stage("adapt", 1, optimizers=named), make_scaler("float32", torch.device("cpu")))
    optimizers.begin(0)
    return generator, discriminator, optimizers


def moved(module: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.ne(0).any()) for p in module.parameters()]


@pytest.mark.parametrize("form", ["bce", "lsgan", "hinge"])
def test_each_loss_moves_its_own_player_alone(form: Form) -> None:
    """Even where the made image comes to the discriminator with its graph."""
    generator, discriminator, optimizers = players()
    label, image = torch.rand(1, 2, 16, 16), torch.rand(1, 3, 16, 16)
    made = generator(label)
    real, fake = discriminator(torch.cat((label, image), 1)), discriminator(torch.cat((label, made), 1))
    optimizers.backward(Loss("judge", discriminator_loss(real, fake, form), "discriminator"))
    assert all(p.grad is None for p in generator.parameters())
    # Weights; a bias that real and made scores share may get +1 and -1 (hinge).
    assert all(moved(scale.last)[0] for scale in discriminator.scales)
    before = [None if p.grad is None else p.grad.clone() for p in discriminator.parameters()]

    made = generator(label)
    fake = discriminator(torch.cat((label, made), 1))
    real = discriminator(torch.cat((label, image), 1))
    optimizers.backward(Loss("make", generator_loss(fake, form) + feature_matching(fake, real), "generator"))
    assert moved(generator)[0]
    assert all(moved(generator[-2]))
    for p, gradient in zip(discriminator.parameters(), before, strict=True):
        assert (p.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(p.grad, gradient)


# The pool


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(*numbers: float) -> Tensor:
    return torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 2, 1, 3).clone()


def numbers(images: Tensor) -> list[float]:
    assert bool((images == images[:, :1, :1, :1]).all())
    return [float(value) for value in images[:, 0, 0, 0]]


def by_hand(capacity: int, steps: list[list[float]], seed: int) -> list[list[float]]:
    """The rule on a list, with the draws that the module documents."""
    kept: list[float] = []
    handed: list[list[float]] = []
    for step, images in enumerate(steps):
        chances, places = torch.rand(2, len(images), generator=rng(seed + step)).tolist()
        handed.append([])
        for image, chance, place in zip(images, chances, places, strict=True):
            if len(kept) < capacity:
                kept.append(image)
            elif chance > 0.5:
                slot = int(place * capacity)
                image, kept[slot] = kept[slot], image
            handed[-1].append(image)
    return handed


def test_the_pool_follows_its_rule() -> None:
    steps = [[float(3 * step + i) for i in range(3)] for step in range(20)]
    pool = ImagePool(4, 2, Size(1, 3))
    handed = [numbers(pool(numbered(*step), rng(100 + i))) for i, step in enumerate(steps)]
    assert handed == by_hand(4, steps, 100)
    assert handed[0] == steps[0]
    assert handed != steps
    assert int(pool.held) == 4


def test_a_full_pool_hands_back_old_images_half_of_the_time() -> None:
    pool = ImagePool(2, 2, Size(1, 3))
    handed = [numbers(pool(numbered(float(i)), rng(i)))[0] for i in range(500)]
    assert 200 < sum(value != i for i, value in enumerate(handed)) < 300


def test_a_pool_goes_on_from_its_stored_state() -> None:
    pool = ImagePool(3, 2, Size(1, 3))
    for i in range(5):
        pool(numbered(i, i + 0.5), rng(i))
    resumed = ImagePool(3, 2, Size(1, 3))
    resumed.load_state_dict({name: value.clone() for name, value in pool.state_dict().items()})
    for i in range(5, 12):
        images = numbered(i, i + 0.5)
        assert torch.equal(pool(images, rng(i)), resumed(images, rng(i)))
    assert torch.equal(pool.images, resumed.images)


def test_what_the_pool_hands_back_is_detached_and_its_own() -> None:
    pool = ImagePool(1, 1, Size(2, 2))
    image = torch.ones(1, 1, 2, 2, requires_grad=True)
    handed = pool(image * 3, rng(0))
    assert not handed.requires_grad
    handed.zero_()
    assert pool.images.unique().tolist() == [3.0]
    assert pool(image.half(), rng(1)).dtype == torch.float16


def test_an_empty_pool_hands_everything_back() -> None:
    image = torch.rand(2, 1, 2, 2, requires_grad=True)
    handed = ImagePool(0, 1, Size(2, 2))(image, rng(0))
    assert torch.equal(handed, image)
    assert not handed.requires_grad


def test_two_processes_have_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each of two gets of its half is its half of what one gets of the whole."""
    alone = ImagePool(3, 2, Size(1, 3))
    ranks = [ImagePool(3, 2, Size(1, 3)) for _ in range(2)]
    for step in range(12):
        whole = torch.rand(4, 2, 1, 3)
        expected = alone(whole, rng(step))
        halves: list[Tensor] = []
        for rank, pool in enumerate(ranks):
            half = slice(2 * rank, 2 * rank + 2)
            with monkeypatch.context() as patch:
                patch.setattr("udabench.parts.adversarial.gather", lambda rows, whole=whole: whole)
                patch.setattr("udabench.parts.adversarial.own", lambda rows, half=half: rows[half])
                halves.append(pool(whole[half], rng(step)))
        assert torch.equal(torch.cat(halves), expected)
    assert torch.equal(ranks[0].images, ranks[1].images)
    assert torch.equal(ranks[0].images, alone.images)
