"""UNIT: its losses in float64, its noise, the order of its players, and the code's values."""

import pytest
import torch
from learnt_play import (
    DOMAINS,
    OTHER,
    batch,
    constant,
    correct,
    gradients,
    in_float64,
    l1,
    least_squares,
    losses,
    opened,
    parts,
    play,
    real_images,
    rng,
    scalars,
    spread,
    watch_players,
)

from udabench import world
from udabench.errors import UsageError
from udabench.method import Loss, Update
from udabench.networks.discriminator import MultiScaleDiscriminator
from udabench.size import Size
from udabench.translate import draws
from udabench.translate.unit import UNIT

SIZE = Size(16, 20)
WEIGHTS = {"adversarial": 1.0, "reconstruction": 10.0, "kl": 0.01, "cycle": 10.0, "cycle_kl": 0.01}
SMALL = {
    "width": 2, "blocks": 1, "discriminator_width": 2, "discriminator_layers": 2, "scales": 2,
}  # fmt: skip


def build(seed=0, **options):
    torch.manual_seed(seed)
    engine = UNIT(**SMALL | options)
    spread(engine, 0.2)
    engine.prepare(SIZE)
    return engine


class Noise:
    """Normal numbers from one seed an image, in the order in which a step asks for them."""

    def __init__(self, seed):
        self.rng = rng(seed)

    def __call__(self, mean):
        seeds = torch.randint(2**62, (len(mean),), generator=self.rng).tolist()
        return mean + torch.stack([torch.randn(mean.shape[1:], generator=rng(seed)) for seed in seeds])


def translated(oracle, real, noise):
    """Means, codes and translations, the source's drawn first."""
    means = {d: oracle.generators[d][0](real[d]) for d in DOMAINS}
    codes = {d: noise(means[d]) for d in DOMAINS}
    return means, codes, {d: oracle.generators[d][1](codes[OTHER[d]]) for d in DOMAINS}


def by_hand(oracle, samples, noise):
    """The generators' summands before their weights, as the code's gen_update has them."""
    real, terms = real_images(samples), {}
    means, codes, made = translated(oracle, real, noise)
    again, _, back = translated(oracle, made, noise)
    for d in DOMAINS:
        terms[f"adversarial_{d}"] = least_squares(oracle.discriminators[d](made[d]).scores, 1)
        terms[f"reconstruction_{d}"] = l1(oracle.generators[d][1](codes[d]), real[d])
        terms[f"kl_{d}"] = (means[d] ** 2).mean().item()
        terms[f"cycle_{d}"] = l1(back[d], real[d])
        terms[f"cycle_kl_{d}"] = (again[d] ** 2).mean().item()
    return terms


def weighted(terms, weights=WEIGHTS):
    return {name: weights[name.rsplit("_", 1)[0]] * value for name, value in terms.items()}


def test_each_loss_in_float64():
    """The discriminators' sum is not halved; they are stepped before the generators are judged by them."""
    weights = {"adversarial": 1.5, "reconstruction": 7.0, "kl": 0.3, "cycle": 4.0, "cycle_kl": 0.2}
    engine, samples, noise = build(**weights), batch(SIZE), Noise(5)
    oracle, real = in_float64(engine), real_images(samples)
    _, _, made = translated(oracle, real, noise)
    judged, right = {}, {}
    for d in DOMAINS:
        good, bad = oracle.discriminators[d](real[d]).scores, oracle.discriminators[d](made[d]).scores
        judged[d] = 1.5 * (least_squares(good, 1) + least_squares(bad, 0))
        right[f"discriminator/accuracy_{d}"] = correct(good, bad)
    stepped = []
    events = play(
        engine, samples, seed=5, look=lambda e: stepped.append(in_float64(engine)) if isinstance(e, Update) else 0
    )
    terms = weighted(by_hand(stepped[0], samples, noise), weights)
    assert parts(events, "discriminators") == pytest.approx(judged, rel=1e-4)
    assert losses(events)["discriminators"].value.item() == pytest.approx(sum(judged.values()), rel=1e-5)
    assert scalars(events) == pytest.approx(right)
    assert parts(events, "generators") == pytest.approx(terms, rel=1e-4)
    assert losses(events)["generators"].value.item() == pytest.approx(sum(terms.values()), rel=1e-5)
    assert len(set(terms.values())) == 10


def test_losses_on_constant_networks():
    """All weights near 0: codes of mean 0, everything is made grey (0) of images that are 1 and 0.5; two scales of
    discriminators that say 0.25 (not stepped): LSGAN 2 * 0.75^2, L1 times 10; discriminators 2 * (0.75^2 + 0.25^2)."""
    engine = build(lr=0.0)
    events = play(engine, constant(engine, batch(SIZE)))
    expected = {
        "adversarial": (1.125, 1.125),
        "reconstruction": (10, 5),
        "kl": (0, 0),
        "cycle": (10, 5),
        "cycle_kl": (0, 0),
    }
    found = parts(events, "generators")
    for name, (source, target) in expected.items():
        assert (found[f"{name}_source"], found[f"{name}_target"]) == pytest.approx((source, target), rel=1e-4, abs=1e-6)
    assert parts(events, "discriminators") == pytest.approx({"source": 1.25, "target": 1.25}, rel=1e-4)
    assert scalars(events) == {"discriminator/accuracy_source": 0.5, "discriminator/accuracy_target": 0.5}


def test_the_codes_weights_are_the_defaults():
    engine, samples, noise = build(), batch(SIZE), Noise(0)
    assert engine.weights == WEIGHTS | {"perceptual": 0}
    translated(in_float64(engine), real_images(samples), noise)
    stepped = []
    events = play(engine, samples, look=lambda e: stepped.append(in_float64(engine)) if isinstance(e, Update) else 0)
    assert parts(events, "generators") == pytest.approx(weighted(by_hand(stepped[0], samples, noise)), rel=1e-4)


def test_each_loss_moves_its_own_player_alone():
    engine = build()
    seen = []

    def look(event):
        if isinstance(event, Loss):
            player, rest = (engine.generators, engine.discriminators)[:: 1 if event.name == "generators" else -1]
            assert all(g is not None for g in gradients(player))
            seen.append((event.name, all(g is None for g in gradients(rest))))
        if isinstance(event, Update):
            seen.append((event.optimizer, all(g is None for g in gradients(engine))))

    play(engine, batch(SIZE), look=look)
    assert seen == [("discriminators", True), ("discriminators", True), ("generators", True)]
    assert watch_players(build(), batch(SIZE)) == {"discriminators": ["discriminators"], "generators": ["generators"]}


def test_every_network_learns():
    engine = build()
    before = {name: value.clone() for name, value in engine.named_parameters()}
    play(engine, batch(SIZE))
    assert not [name for name, value in engine.named_parameters() if torch.equal(value, before[name])]


def test_translations_are_without_noise_and_cross_the_domains():
    engine, image = build(), torch.rand(2, 3, *SIZE, generator=rng())
    source, target = (engine.generators[d] for d in DOMAINS)
    signed = 2 * image - 1
    for mode in (engine.train(), engine.eval()):
        torch.testing.assert_close(mode(image, None, rng()), target[1](source[0](signed)) / 2 + 0.5)
        torch.testing.assert_close(mode.back(image, rng()), source[1](target[0](signed)) / 2 + 0.5)
    state = rng(3)
    before = state.get_state()
    engine(image, None, state)
    engine.back(image, state)
    assert torch.equal(state.get_state(), before)


def test_a_step_is_a_function_of_the_rng_alone():
    def values(seed):
        torch.manual_seed(seed + 50)
        torch.rand(seed)
        engine = build()
        torch.manual_seed(seed)
        return {name: loss.value.item() for name, loss in losses(play(engine, batch(SIZE), seed=1)).items()}

    assert values(1) == values(2)
    engine = build()
    other = {name: loss.value.item() for name, loss in losses(play(engine, batch(SIZE), seed=2)).items()}
    assert all(other[name] != value for name, value in values(1).items())


def test_the_state_is_whole():
    engine = build()
    play(engine, batch(SIZE))
    again = build(seed=1)
    again.load_state_dict(engine.state_dict())
    first, second = (parts(play(each, batch(SIZE, seed=4), seed=4), "generators") for each in (engine, again))
    assert first == second


class Brightness:
    """In the place of a perceptual loss: how much brighter the image is than its goal."""

    def __init__(self, *asked):
        self.asked, self.seen = asked, []

    def loss(self, image, goal):
        self.seen.append((image.detach(), goal))
        return (image - goal).mean()


def test_the_perceptual_term_compares_a_translation_with_its_original(monkeypatch):
    monkeypatch.setattr("udabench.translate.unit.perceptual_loss", Brightness)
    engine, samples = build(perceptual=2.0, perceptual_network="lite0", perceptual_weights="a file"), batch(SIZE)
    assert engine.perceptual.asked == ("lite0", "a file")
    found = parts(play(engine, samples), "generators")
    for (image, goal), made, original in zip(engine.perceptual.seen, DOMAINS, ("target", "source"), strict=True):
        torch.testing.assert_close(goal, getattr(samples, original).image)
        assert 0 <= image.min() <= image.max() <= 1
        assert found[f"perceptual_{made}"] == pytest.approx(2 * (image - goal).mean().item())
    assert build().perceptual is None


def test_a_perceptual_term_asks_for_weights():
    with pytest.raises(UsageError, match="random weights"):
        UNIT(**SMALL, perceptual=1.0, perceptual_weights="none")


# Noise


def test_noise_is_normal_and_of_the_maps_form():
    maps = torch.zeros(3, 4, 50, 60, dtype=torch.float64)
    noise = draws.noise_like(rng(), maps)
    assert (noise.shape, noise.dtype) == (maps.shape, maps.dtype)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(noise[0], noise[1])
    state = rng()
    first, second, again = draws.noise_like(state, maps), draws.noise_like(state, maps), draws.noise_like(rng(), maps)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_two_processes_draw_the_noise_of_one(monkeypatch):
    maps = torch.zeros(4, 2, 5, 5)
    alone = draws.noise_like(rng(), maps)
    monkeypatch.setattr(world, "world_size", lambda: 2)
    monkeypatch.setattr(draws, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(world, "rank", lambda rank=rank: rank)
        state = rng()
        assert torch.equal(draws.noise_like(state, maps[:2]), alone[2 * rank : 2 * rank + 2])


# The code's values


def test_the_published_optimisers():
    for optimizer in build().optimizers().values():
        assert (optimizer.kind, optimizer.options) == ("adam", {"betas": (0.5, 0.999)})
        (group,) = optimizer.groups
        assert (group.lr, group.weight_decay) == (1e-4, 1e-4)
        factors = [optimizer.schedule.factor(i, 10**6) for i in (0, 99_999, 100_000, 250_000)]
        assert factors == [1, 1, 0.5, 0.25]
    assert build(lr=0.5).optimizers()["generators"].groups[0].lr == 0.5
    assert build(decay_every=10).optimizers()["generators"].schedule.factor(10, 100) == 0.5


def test_the_published_networks():
    """LDR's numbers for F (its section 4.3) are these: 64 channels, two halvings, four blocks, three scales
    of four layers; codes of 256 channels on a quarter of the grid."""
    engine = UNIT()
    for domain in DOMAINS:
        autoencoder, discriminator = engine.generators[domain], engine.discriminators[domain]
        assert isinstance(discriminator, MultiScaleDiscriminator)
        assert [len(scale.hidden) for scale in discriminator.scales] == [4, 4, 4]
        assert discriminator.scales[0].hidden[0][0].weight.shape == (64, 3, 4, 4)
        assert [autoencoder[0][0].out_channels, autoencoder.cell] == [64, 4]
        assert sum(type(part).__name__ == "ResidualBlock" for part in autoencoder.modules()) == 8
    scales = engine.discriminators["source"].scales
    assert not torch.equal(scales[0].last.weight, scales[1].last.weight)
    assert engine.generators["source"][0](torch.rand(1, 3, 8, 16)).shape == (1, 256, 2, 4)


def test_options_reach_their_networks():
    engine = build(width=3, blocks=2, discriminator_width=5, discriminator_layers=1, scales=3)
    autoencoder, discriminator = engine.generators["source"], engine.discriminators["target"]
    assert autoencoder[0][0].out_channels == 3
    assert sum(type(part).__name__ == "ResidualBlock" for part in autoencoder.modules()) == 4
    assert [c.out_channels for c in discriminator.scales[2].convolutions()] == [5, 1]
    assert len(discriminator.scales) == 3
    assert set(opened(engine).built) == {"generators", "discriminators"}
