"""Both players' losses in float64, with plain torch: what the tests of output alignment compare with."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.method import Loss
from udabench.testing.step import events_of


def scores(discriminator, seen):
    """AdaptSegNet's five convolutions of stride 2, LeakyReLU 0.2 between: N C H W -> N 1 h w."""
    x, layers = seen.double(), discriminator.convolutions()
    assert [layer.weight.shape[0] / layers[0].weight.shape[0] for layer in layers[:-1]] == [1, 2, 4, 8]
    for layer in layers:
        x = F.conv2d(x, layer.weight.double(), layer.bias.double(), stride=2, padding=1)
        if layer is not layers[-1]:
            x = torch.where(x > 0, x, 0.2 * x)
    return x.detach()


def bce(score, label):
    """-y log sigmoid(s) - (1 - y) log(1 - sigmoid(s)), mean."""
    p = 1 / (1 + (-score).exp())
    return -(label * p.log() + (1 - label) * (1 - p).log()).mean().item()


def at_image(logits, size):
    return F.interpolate(logits.detach().double(), size, mode="bilinear", align_corners=False)


def probability(logits, size):
    return torch.softmax(at_image(logits, size), 1)


def information(logits, size):
    """-p log2 p / log2 C."""
    p = probability(logits, size)
    return -p * p.log2() / math.log2(p.shape[1])


def played(method, batch, look=lambda event: None, stage=0, iteration=3):
    """One step through the engine's optimisers; ``look`` is called after each event. Returns all events."""
    method.train()
    opened = method.stages()[stage]
    optimizers = Optimizers(opened, make_scaler("float32", torch.device("cpu")))
    return events_of(opened, batch, optimizers, torch.Generator().manual_seed(0), iteration, look)


def losses_of(events):
    return {event.name: event for event in events if isinstance(event, Loss)}
