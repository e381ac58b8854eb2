"""A step of an engine that is trained, as the harness takes it, and its losses in float64."""

from __future__ import annotations

import copy

import torch

from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.method import Loss, Scalar, Stage
from udabench.testing.setup import fake_batch
from udabench.testing.step import events_of

DOMAINS = ("source", "target")
OTHER = {"source": "target", "target": "source"}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size, seed=0, images=2):
    return fake_batch(size=size, images=images, seed=seed)


def real_images(samples):
    """In float64 and [-1, 1]."""
    return {"source": samples.source.image.double() * 2 - 1, "target": samples.target.image.double() * 2 - 1}


def in_float64(engine):
    """A copy whose networks reckon in float64."""
    return copy.deepcopy(engine).double().requires_grad_(False)


def translate_stage(engine, iterations=10):
    return Stage("translate", iterations, engine.step, engine.optimizers())


def opened(engine, iterations=10):
    return Optimizers(translate_stage(engine, iterations), make_scaler("float32", torch.device("cpu")))


def play(engine, samples, optimizers=None, seed=0, look=lambda event: None, iteration=0):
    """One step; ``look`` is called after each event. Returns all events."""
    return events_of(translate_stage(engine), samples, optimizers or opened(engine), rng(seed), iteration, look)


def losses(events):
    return {event.name: event for event in events if isinstance(event, Loss)}


def parts(events, player):
    return {name: value.item() for name, value in losses(events)[player].parts.items()}


def scalars(events):
    return {event.name: event.value.item() for event in events if isinstance(event, Scalar)}


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def same_gradients(module, before):
    return all(
        (p.grad is None) == (g is None) and (g is None or torch.equal(p.grad, g))
        for p, g in zip(module.parameters(), before, strict=True)
    )


def watch_players(engine, samples):
    """Which player's gradients each loss changed, of all four networks; its own all receive one."""
    found, before = {}, {name: gradients(getattr(engine, name)) for name in ("generators", "discriminators")}

    def look(event):
        if isinstance(event, Loss):
            found[event.name] = [name for name, old in before.items() if not same_gradients(getattr(engine, name), old)]
            assert all(p.grad is not None for p in getattr(engine, event.name).parameters())
        before.update({name: gradients(getattr(engine, name)) for name in before})

    play(engine, samples, look=look)
    return found


def spread(module, std=0.1):
    """Weights and biases at which scores differ from patch to patch."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)


def l1(a, b):
    return (a - b).abs().mean().item()


def least_squares(scores, label):
    """Summed over scales, each a mean."""
    return sum(((score - label) ** 2).mean().item() for score in scores)


def correct(real, made):
    """The share of scores on the right side of 0.5, averaged over scales and both kinds."""
    shares = [(score > 0.5).double().mean() for score in real] + [(score < 0.5).double().mean() for score in made]
    return sum(shares).item() / len(shares)


def constant(engine, samples):
    """All makes grey (0) of images that are 1 and 0.5 in [-1, 1]; discriminators say 0.25 (of each scale)."""
    spread(engine, 1e-12)
    for module in engine.discriminators.modules():
        if hasattr(module, "last"):
            torch.nn.init.constant_(module.last.bias, 0.25)
    source = samples.source._replace(image=torch.ones_like(samples.source.image))
    return samples._replace(
        source=source, target=samples.target._replace(image=torch.full_like(samples.target.image, 0.75))
    )
