"""CycleGAN: its losses in float64, whose gradient goes where, the pool, and the paper's values."""

import pytest
import torch
from learnt_play import (
    DOMAINS,
    OTHER,
    batch,
    constant,
    correct,
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

from udabench.method import Loss, Update
from udabench.parts.adversarial import ImagePool
from udabench.size import Size
from udabench.translate.cyclegan import CycleGAN

SIZE = Size(24, 28)


def build(size=SIZE, seed=0, **options):
    torch.manual_seed(seed)
    values = {"width": 2, "blocks": 1, "discriminator_width": 2, "pool": 2}
    engine = CycleGAN(**values | options)
    spread(engine)
    engine.prepare(size)
    return engine


def by_hand(engine, samples, cycle, identity):
    """The generators' summands, from the paper's Eq 3 and section 5.2 and the code's weights."""
    oracle, real = in_float64(engine), real_images(samples)
    made = {d: oracle.generators[d](real[OTHER[d]]) for d in DOMAINS}
    terms = {}
    for d in DOMAINS:
        terms[f"adversarial_{d}"] = least_squares(oracle.discriminators[d](made[d]).scores, 1)
        # A source image goes through the target's look, and back.
        terms[f"cycle_{d}"] = cycle[d] * l1(oracle.generators[d](made[OTHER[d]]), real[d])
        terms[f"identity_{d}"] = cycle[d] * identity * l1(oracle.generators[d](real[d]), real[d])
    return terms, made


def judged_by_hand(engine, samples, shown):
    oracle, real = in_float64(engine), real_images(samples)
    verdicts = {
        d: (oracle.discriminators[d](real[d]).scores, oracle.discriminators[d](shown[d]).scores) for d in DOMAINS
    }
    losses = {d: (least_squares(good, 1) + least_squares(bad, 0)) / 2 for d, (good, bad) in verdicts.items()}
    right = {f"discriminator/accuracy_{d}": correct(*both) for d, both in verdicts.items()}
    return losses, right


def test_each_loss_in_float64():
    engine, samples = build(cycle_source=7.0, cycle_target=4.0, identity=0.3), batch(SIZE)
    terms, made = by_hand(engine, samples, {"source": 7.0, "target": 4.0}, 0.3)
    judged, right = judged_by_hand(engine, samples, made)
    events = play(engine, samples)
    assert parts(events, "generators") == pytest.approx(terms, rel=1e-4)
    assert losses(events)["generators"].value.item() == pytest.approx(sum(terms.values()), rel=1e-5)
    # The pool is not full yet, so what was made is shown; the discriminators are those of before the step.
    assert parts(events, "discriminators") == pytest.approx(judged, rel=1e-4)
    assert losses(events)["discriminators"].value.item() == pytest.approx(sum(judged.values()), rel=1e-5)
    assert scalars(events) == pytest.approx(right)
    assert len(set(terms.values())) == 6


def test_losses_on_constant_networks():
    """Generators that make everything grey (0) of images that are 1 and 0.5 in [-1, 1]; discriminators that say 0.25:
    LSGAN 0.75^2, cycles 10 and 5, identities half of that; discriminators (0.75^2 + 0.25^2) / 2."""
    engine = build()
    events = play(engine, constant(engine, batch(SIZE)))
    assert parts(events, "generators") == pytest.approx({
        "adversarial_source": 0.5625, "cycle_source": 10, "identity_source": 5,
        "adversarial_target": 0.5625, "cycle_target": 5, "identity_target": 2.5,
    }, rel=1e-4)  # fmt: skip
    assert parts(events, "discriminators") == pytest.approx({"source": 0.3125, "target": 0.3125}, rel=1e-4)
    assert scalars(events) == {"discriminator/accuracy_source": 0.5, "discriminator/accuracy_target": 0.5}


def test_without_identity_no_image_goes_through_its_own_generator():
    engine, calls = build(identity=0.0), []
    for domain, generator in engine.generators.items():
        generator.register_forward_hook(lambda module, given, made, domain=domain: calls.append(domain))
    events = list(engine.play({d: image.float() for d, image in real_images(batch(SIZE)).items()}, rng()))
    assert set(losses(events)["generators"].parts) == {
        "adversarial_source", "adversarial_target", "cycle_source", "cycle_target",
    }  # fmt: skip
    assert sorted(calls) == ["source", "source", "target", "target"]


def test_each_loss_moves_its_own_player_alone():
    assert watch_players(build(), batch(SIZE)) == {"generators": ["generators"], "discriminators": ["discriminators"]}


def test_both_players_step_at_the_end_and_learn():
    engine, samples = build(), batch(SIZE)
    before = {name: value.clone() for name, value in engine.named_parameters()}
    order = []

    def look(event):
        if isinstance(event, Loss | Update):
            order.append(type(event).__name__ + ":" + getattr(event, "name", ""))
        assert all(torch.equal(value, before[name]) for name, value in engine.named_parameters())

    play(engine, samples, look=look)
    assert order == ["Loss:generators", "Loss:discriminators"]
    # A bias under an instance norm changes nothing.
    weights = {name: value for name, value in engine.named_parameters() if value.dim() == 4}
    assert not [name for name, value in weights.items() if torch.equal(value, before[name])]


def test_discriminators_are_shown_what_the_pools_hand_back():
    engine, samples = build(pool=1), batch(SIZE)
    old = {d: torch.full((2, 3, *SIZE), level) for d, level in (("source", 0.5), ("target", -0.5))}
    given = {}
    for domain, pool in engine.pools.items():
        pool.forward = lambda images, rng, domain=domain: given.update({domain: images}) or old[domain]
    events = play(engine, samples)
    judged, right = judged_by_hand(engine_before := build(pool=1), samples, {d: o.double() for d, o in old.items()})
    assert parts(events, "discriminators") == pytest.approx(judged, rel=1e-4)
    assert scalars(events) == pytest.approx(right)
    _, made = by_hand(engine_before, samples, dict.fromkeys(DOMAINS, 1.0), 1.0)
    for domain in DOMAINS:
        torch.testing.assert_close(given[domain].double(), made[domain], atol=1e-5, rtol=0)


def test_the_state_holds_the_pools():
    engine = build(pool=3)
    optimizers = opened(engine)
    for step in range(3):
        play(engine, batch(SIZE, seed=step), optimizers, seed=step)
    resumed = build(seed=1, pool=3)
    resumed.load_state_dict(engine.state_dict())
    assert isinstance(resumed.pools["target"], ImagePool)
    assert resumed.pools["target"].held == 3
    # Without pools the state is another one, and so is the loss.
    fresh = build(pool=3)
    fresh.load_state_dict(engine.state_dict() | {k: v for k, v in build(pool=3).state_dict().items() if "pools" in k})
    found = [losses(play(each, batch(SIZE, seed=9), seed=9)) for each in (engine, resumed, fresh)]
    values = [{name: loss.value.item() for name, loss in each.items()} for each in found]
    assert values[0] == values[1]
    assert values[0]["generators"] == values[2]["generators"]
    assert values[0]["discriminators"] != values[2]["discriminators"]


def test_the_pool_draws_from_the_rng():
    def values(seed):
        engine = build(pool=1)
        play(engine, batch(SIZE, seed=1, images=8))
        return losses(play(engine, batch(SIZE, images=8), seed=seed))["discriminators"].value.item()

    assert values(3) == values(3)
    assert values(3) != values(4)


def test_a_step_without_pools_is_refused():
    engine = CycleGAN(width=1, blocks=1, discriminator_width=1)
    with pytest.raises(ValueError, match=r"prepare\(size\) comes before"):
        next(engine.step(batch(SIZE), 0, rng()))


def test_each_direction_has_its_generator():
    engine, image = build(), torch.rand(1, 3, *SIZE, generator=rng())
    there = engine.generators["target"](2 * image - 1) / 2 + 0.5
    back = engine.generators["source"](2 * image - 1) / 2 + 0.5
    torch.testing.assert_close(engine(image, None, rng()), there)
    torch.testing.assert_close(engine.back(image, rng()), back)
    assert not torch.allclose(there, back)


def test_the_published_networks():
    """Parameter counts that the authors' program prints: 11.378 and 2.765 million; weights N(0, 0.02), biases 0."""
    engine = CycleGAN()
    for domain in DOMAINS:
        assert sum(p.numel() for p in engine.generators[domain].parameters()) == 11_378_179
        assert sum(p.numel() for p in engine.discriminators[domain].parameters()) == 2_764_737
        assert engine.discriminators[domain].grids(Size(256, 256))[0][-1] == Size(30, 30)
    weights = [p for p in engine.parameters() if p.dim() == 4]
    biases = [p for p in engine.parameters() if p.dim() == 1]
    assert all(p.std().item() == pytest.approx(0.02, rel=0.05) for p in weights)
    assert not any(p.any() for p in biases)
    engine.prepare(Size(32, 32))
    assert engine.pools["source"].images.shape == (50, 3, 32, 32)


def test_the_published_optimisers():
    engine = build()
    for optimizer in engine.optimizers().values():
        assert (optimizer.kind, optimizer.options) == ("adam", {"betas": (0.5, 0.999)})
        (group,) = optimizer.groups
        assert (group.lr, group.weight_decay) == (2e-4, 0)
        factors = [optimizer.schedule.factor(i, 200_000) for i in (0, 100_000, 150_000, 200_000)]
        assert factors == [1, 1, 0.5, 0]
    assert build(lr=0.5).optimizers()["generators"].groups[0].lr == 0.5


def test_options_reach_their_networks():
    engine = build(width=3, blocks=2, discriminator_width=5, discriminator_layers=2, pool=4)
    generator, discriminator = engine.generators["source"], engine.discriminators["target"]
    assert generator[1].out_channels == 3
    assert sum(type(part).__name__ == "ResidualBlock" for part in generator) == 2
    assert [(c.out_channels, c.padding) for c in discriminator.convolutions()] == [
        (5, (1, 1)), (10, (1, 1)), (20, (1, 1)), (1, (1, 1)),
    ]  # fmt: skip
    assert engine.pools["target"].capacity == 4
