"""What a run will cost, before it starts: parameters, disk and time, measured on a scaled-down step."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from udabench.device import choose_device
from udabench.method import Batch, Context, Loss, Optimizer, Samples
from udabench.run.plan import Plan
from udabench.run.setup import RunSetup, build_method
from udabench.size import Size

PROBE_SIDE = 64
"""Side of the crop on which a step's operations are counted; they grow with the crop's area."""
STATE_COPIES = {"adamw": 2, "adam": 2, "sgd": 1}
"""Values that an optimiser keeps for each parameter."""


@dataclass(frozen=True)
class Estimate:
    """Rough figures, said to be so.

    Attributes:
        parameters: trained ones.
        checkpoint_bytes: one checkpoint; a run keeps some of them.
        step_flops: operations of one step, forward and backward.
        flops_per_second: what this device reached in a large matrix product.
    """

    parameters: int
    checkpoint_bytes: int
    step_flops: float
    flops_per_second: float

    @property
    def step_seconds(self) -> float:
        """A network's layers reach about a third of what a large matrix product does."""
        return 3 * self.step_flops / self.flops_per_second


def estimate(plan: Plan) -> Estimate:
    """Builds the method with random weights and counts the operations of one step on a small crop."""
    config = plan.config
    bare = config.model_copy(
        update={
            "network": config.network.model_copy(update={"weights": "none"}),
            "data": config.data.model_copy(update={"crop": Size(PROBE_SIDE, PROBE_SIDE)}),
        }
    )
    method = build_method(plan.method, bare.settings, RunSetup(plan.registry, bare, plan.task))
    stage = method.stages()[0]
    area = config.data.crop.height * config.data.crop.width / PROBE_SIDE**2
    batch = _random_batch(plan, stage.context)
    with FlopCounterMode(display=False) as counter:
        for event in stage.step(batch, 0, torch.Generator().manual_seed(0)):
            if isinstance(event, Loss):
                event.value.backward()  # type: ignore[no-untyped-call]
    state = sum(t.numel() * t.element_size() for t in method.state_dict().values())
    return Estimate(
        parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        checkpoint_bytes=state + sum(_state_bytes(o) for o in stage.optimizers.values()),
        step_flops=counter.get_total_flops() * area,
        flops_per_second=_matrix_speed(choose_device(config.engine.device)),
    )


def _state_bytes(optimizer: Optimizer) -> int:
    values = sum(p.numel() * p.element_size() for group in optimizer.groups for p in group.parameters)
    return values * STATE_COPIES[optimizer.kind]


def _random_batch(plan: Plan, context: Size | None) -> Batch:
    data = plan.config.data
    return Batch(
        _random_samples(data.source_batch, len(plan.task.classes), context, labelled=True),
        _random_samples(data.target_batch, len(plan.task.classes), context, labelled=plan.method.target_labels),
    )


def _random_samples(count: int, classes: int, context: Size | None, labelled: bool) -> Samples:
    side = PROBE_SIDE
    image = torch.rand(count, 3, side, side)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Samples(
        image=image,
        label=torch.randint(classes, (count, side, side)) if labelled else None,
        names=tuple(f"probe-{i}" for i in range(count)),
        valid=None,
        box=torch.tensor([[0, 0, side, side]] * count),
        size=Size(side, side),
        flipped=zeros.bool(),
        layers={},
        context=Context(image, zeros, zeros) if context else None,
    )


def _matrix_speed(device: torch.device, side: int = 1024, seconds: float = 0.3) -> float:
    a = torch.rand(side, side, device=device)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        (a @ a).sum().item()
        done += 1
    return done * 2 * side**3 / (time.perf_counter() - start)
