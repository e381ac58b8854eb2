"""What a run will cost, before it starts: parameters, disk and time, measured on a scaled-down step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from udabench.config import RunConfig
from udabench.data.whole import whole_images
from udabench.device import choose_device
from udabench.engine.finite import Finiteness
from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.engine.referee import Referee
from udabench.engine.seeding import seed_everything
from udabench.engine.stages import enter, read_stages
from udabench.engine.step import Notes, Stepper
from udabench.engine.watch import Watchdog
from udabench.errors import DataError
from udabench.method import Batch, Context, Domain, Method, Samples, Stage
from udabench.run.disk import DiskUse, disk_use, state_size
from udabench.run.plan import Plan
from udabench.run.setup import bare_method, check_crop
from udabench.size import Size

PROBE_SIDE = 64
"""Side of the crop on which a step's operations are counted; they grow with the crop's area."""


@dataclass(frozen=True)
class Estimate:
    """Rough figures, said to be so.

    Attributes:
        parameters: trained ones.
        disk: what it takes of the disk at most.
        step_flops: operations of one step, forward and backward, on average over the stages that could be measured;
            None where none could (each reads what an earlier pass has written).
        flops_per_second: what this device reached in a large matrix product.
    """

    parameters: int
    disk: DiskUse
    step_flops: float | None
    flops_per_second: float

    @property
    def step_seconds(self) -> float | None:
        """A network's layers reach about a third of what a large matrix product does."""
        return None if self.step_flops is None else 3 * self.step_flops / self.flops_per_second


def estimate(plan: Plan, images: Mapping[Domain, int] = {}, taken: int = 0) -> Estimate:
    """Builds the method with random weights and counts the operations of a step of each stage on a small crop.

    ``images``, ``taken``: see :func:`udabench.run.disk.disk_use`.
    """
    config = _small(plan.config)
    seed_everything(config.seed, "estimate")
    method = bare_method(plan, config)
    check_crop(method, plan.config)
    states, counted = [], []
    for index in range(len(method.stages())):
        enter(method, index)
        states.append(state_size(method))
        counted.append(_step_flops(plan, config, method, index))
    stages = method.stages()
    measured = [(stage.iterations, flops) for stage, flops in zip(stages, counted, strict=True) if flops is not None]
    scale = _scale(plan.config) * plan.config.engine.accumulate
    total = sum(iterations for iterations, _ in measured)
    return Estimate(
        parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        disk=disk_use(stages, states, plan.config, images, taken),
        step_flops=scale * sum(iterations * flops for iterations, flops in measured) / total if total else None,
        flops_per_second=_matrix_speed(choose_device(plan.config.engine.device)),
    )


def _small(config: RunConfig) -> RunConfig:
    """The same run with a small crop, and steps that any CPU can make."""
    engine = {"precision": "float32", "accumulate": 1, "channels_last": False, "compile": False}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"crop": Size(PROBE_SIDE, PROBE_SIDE)}),
            "engine": config.engine.model_copy(update=engine),
        }
    )


def _scale(config: RunConfig) -> float:
    return config.data.crop.height * config.data.crop.width / PROBE_SIDE**2


def _step_flops(plan: Plan, config: RunConfig, method: Method, index: int) -> float | None:
    """Of one step of a stage that was entered; None where it has no steps, or reads what noise has not: layers, files
    by the images' names."""
    stage = read_stages(method, config)[index]
    if stage.layers or not stage.iterations:
        return None
    method.train()
    cpu, classes = torch.device("cpu"), plan.task.classes
    optimizers = Optimizers(stage, make_scaler("float32", cpu))
    stepper = Stepper(stage, config, cpu, optimizers, Finiteness(), Referee(len(classes)), Watchdog(classes.names))
    batch = random_batch(plan, stage, method.target_labels, Size(PROBE_SIDE, PROBE_SIDE))
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        try:
            stepper.step([batch], 0, Notes(1))
        except DataError:
            return None
    return float(counter.get_total_flops())


def _convolution_backward(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: Sequence[bool],
    **rest: Any,
) -> int:
    """As many operations as forwards, for each of the input's and the weights' gradient that is wanted."""
    positions = x_shape if transposed else grad_shape
    return 2 * positions[0] * prod(positions[2:]) * prod(w_shape) * sum(wanted[:2])


FORMULAS = {torch.ops.aten.convolution_backward: _convolution_backward}
"""torch's own formula counts the weights' gradient of a depthwise convolution as that of a full one."""


def random_batch(plan: Plan, stage: Stage, target_labels: bool, crop: Size) -> Batch:
    """Noise in the place of a stage's crops, and of their contexts in the same proportion."""
    data, classes = plan.config.data, len(plan.task.classes)
    context = None
    if stage.context is not None:
        sides = zip(stage.context, crop, data.crop, strict=True)
        context = Size(*(max(round(side * part / whole), part) for side, part, whole in sides))
    source = _random_samples(data.source_batch, classes, crop, context, labelled=True)
    target = _random_samples(data.target_batch, classes, crop, context, labelled=target_labels)
    return Batch(source if "source" in stage.domains else None, target if "target" in stage.domains else None)


def _random_samples(count: int, classes: int, crop: Size, context: Size | None, labelled: bool) -> Samples:
    zeros = torch.zeros(count, dtype=torch.int64)
    samples = whole_images(torch.rand(count, 3, *crop), tuple(f"probe-{i}" for i in range(count)))
    return samples._replace(
        label=torch.randint(classes, (count, *crop)) if labelled else None,
        context=None if context is None else Context(torch.rand(count, 3, *context), zeros, zeros),
    )


def _matrix_speed(device: torch.device, side: int = 1024, seconds: float = 0.3) -> float:
    a = torch.rand(side, side, device=device)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        (a @ a).sum().item()
        done += 1
    return done * 2 * side**3 / (time.perf_counter() - start)
