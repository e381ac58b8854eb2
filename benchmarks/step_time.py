"""Time of a training step by method and network, and what of it is not the networks' own work.

Steps of the real methods on the generated data set, by the engine's own stepper and loader. The step's parts are
labelled by ``torch.profiler.record_function``: the networks (forward passes of student, teacher and the frozen encoder;
the backward pass from the logits on; the optimiser) against all else (pseudo-labels, mixing, jitter and blur,
translation, the losses and their backward pass, the teacher's update).

    python benchmarks/step_time.py                                     lite0 at 512x256, 2 + 2 images, CPU
    python benchmarks/step_time.py --device cuda --networks resnet101-deeplabv2,mit_b5-daformer --precision bfloat16
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
import udabench_t2sda.method as t2sda
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from udabench.augment.photometry import StrongAugment
from udabench.data.batches import to_device
from udabench.data.build import Builder
from udabench.data.loader import auto_workers, stream
from udabench.data.locate import open_dataset
from udabench.engine.backend import arrange, configured, peak_memory, place
from udabench.engine.finite import Finiteness
from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.engine.referee import Referee
from udabench.engine.seeding import seed_everything
from udabench.engine.step import Notes, Stepper
from udabench.engine.watch import Watchdog
from udabench.method import Batch, Method
from udabench.network import Network
from udabench.parts import self_trainer, self_training, supervised
from udabench.parts.ema import Ema
from udabench.parts.projector import Projector
from udabench.plugins import load_registry
from udabench.run.plan import Plan, Request, make_plan
from udabench.run.setup import RunSetup, build_method

TARGET = 15.0
SOURCE, OTHER = "toycity", "toycity-real"
NETWORKS, BACKWARD, OPTIMIZER, LOSSES_BACKWARD = "networks", "backward", "optimiser", "losses, backward"
WARM = 3
PARTS: tuple[tuple[Any, str, str], ...] = (
    (self_trainer, "claim_labels", "pseudo-labels"),
    (self_trainer, "within_margins", "pseudo-labels"),
    (self_training, "class_mask", "ClassMix"),
    (self_training, "paste", "ClassMix"),
    (StrongAugment, "__call__", "jitter and blur"),
    (supervised, "distort", "jitter and blur"),
    (self_trainer, "segmentation_loss", "losses, forward"),
    (supervised, "segmentation_loss", "losses, forward"),
    (self_trainer, "thing_mask", "feature distance"),
    (self_trainer, "feature_distance", "feature distance"),
    (Ema, "update", "teacher's update"),
    (t2sda, "translate_source", "translation"),
    (t2sda, "pull", "pull"),
    (t2sda, "mean_confidence", "class confidences"),
    (t2sda, "target_view", "target's view"),
    (Optimizers, "finish", OPTIMIZER),
)
"""Owner, name, and the part of the step that the time of its calls goes to. No part lies within another."""


@dataclass(frozen=True)
class Case:
    """One row: a method on a network."""

    method: str
    network: str
    device: str
    steps: int
    flags: Mapping[str, Any]
    preset: str


@dataclass
class Result:
    """Milliseconds a step, images a second, percent of the time that was spent waiting, bytes, and parts in percent."""

    milliseconds: float
    images: float
    wait: float
    memory: int
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def overhead(self) -> float:
        """Percent of the step that is not the networks' own work."""
        own = self.parts[NETWORKS] + self.parts[BACKWARD] + self.parts[OPTIMIZER]
        return 100 - own + self.parts.get(LOSSES_BACKWARD, 0.0)


class Steps:
    """The steps of a method's first stage, one after the other, as the engine makes them."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.config, self.device = plan.config, device
        seed_everything(0, "build")
        self.method: Method = build_method(
            plan.method, self.config.settings, RunSetup(plan.registry, self.config, plan.task)
        )
        place(self.method, self.config.engine, device)
        self.method.train()
        stage = self.method.stages()[0]
        optimizers = Optimizers(stage, make_scaler(self.config.engine.precision, device))
        names = plan.task.classes.names
        self.stepper = Stepper(
            stage, self.config, device, optimizers, Finiteness(), Referee(len(names)), Watchdog(names)
        )
        builder = _builder(plan, self.method)
        self.function = builder.stage(stage)
        self.count = 0

    def batches(self, number: int) -> Iterator[Batch]:
        """As a run gets them."""
        workers = auto_workers(-1, self.function)
        return stream(self.function, 0, number, workers, pin=self.device.type == "cuda")

    def make(self, batch: Batch) -> None:
        """One step."""
        with record_function("step"):
            arranged = arrange(to_device(batch, self.device), self.config.engine)
            self.stepper.step([arranged], self.count, Notes(self.count + 1))
        self.count += 1

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _builder(plan: Plan, method: Method) -> Builder:
    config = plan.config
    source, target = (open_dataset(plan.registry, name, "train", config.data.roots) for name in (SOURCE, OTHER))
    return Builder(config.seed, config.data, plan.task.classes, source, target, method.target_labels)


def measure(case: Case) -> Result:
    """Times first, undisturbed; then as many steps again under the profiler."""
    device = torch.device(case.device)
    flags = {**case.flags, "network.name": case.network, "network.options": {}, "engine.device": case.device}
    plan = make_plan(load_registry(), Request(case.method, SOURCE, OTHER, case.preset, flags))
    with configured(plan.config.engine, device):
        steps = Steps(plan, device)
        batches = steps.batches(WARM + 2 * case.steps)
        for _ in range(WARM):
            steps.make(next(batches))
        result = _timed(steps, batches, case.steps)
        result.parts = _parts(steps, batches, case.steps)
    return result


def _timed(steps: Steps, batches: Iterator[Batch], number: int) -> Result:
    times, waits = [], []
    for _ in range(number):
        steps.wait()
        began = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - began)
        steps.make(batch)
        steps.wait()
        times.append(time.perf_counter() - began)
    images = sum(len(samples.image) for samples in batch if samples is not None)
    return Result(
        1000 * median(times), images / median(times), 100 * sum(waits) / sum(times), peak_memory(steps.device)
    )


def _parts(steps: Steps, batches: Iterator[Batch], number: int) -> dict[str, float]:
    """Part -> percent of the steps' time (on a GPU: of its busy time)."""
    cuda = steps.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with labelled(steps.method, cuda), profile(activities=activities) as profiler:
        for _ in range(number):
            steps.make(next(batches))
        steps.wait()
    labels = {part for _, _, part in PARTS} | {NETWORKS, BACKWARD, LOSSES_BACKWARD, "step"}
    spent: dict[str, float] = {}
    for row in profiler.key_averages():
        if row.key in labels:
            # On a GPU a label has a row for each side.
            took = float(row.device_time_total if cuda else row.cpu_time_total)
            spent[row.key] = max(took, spent.get(row.key, 0.0))
    whole = spent.pop("step")
    return {part: 100 * microseconds / whole for part, microseconds in spent.items()}


@contextmanager
def labelled(method: Method, cuda: bool) -> Iterator[None]:
    """All parts labelled in the block."""
    with ExitStack() as stack:
        for owner, name, part in PARTS:
            stack.enter_context(_replaced(owner, name, _recorded(getattr(owner, name), part)))
        inside = _Networks(backward_ends=not cuda)
        frozen = getattr(method, "imagenet", None)
        modules = [*method.modules(), *([frozen.module] if frozen is not None else [])]
        for module in modules:
            if isinstance(module, Network | Projector):
                for name in ("forward", "encode"):
                    if hasattr(module, name):
                        stack.enter_context(_replaced(module, name, inside.recorded(getattr(module, name))))
        stack.enter_context(_replaced(Optimizers, "backward", inside.recorded_backward(Optimizers.backward)))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own or not isinstance(owner, nn.Module):
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _recorded(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def recorded(*arguments: Any, **options: Any) -> Any:
        with record_function(part):
            return function(*arguments, **options)

    return recorded


class _Networks:
    """Labels outermost calls of networks, and in the backward pass what comes before the gradient of their logits.

    On a GPU the backward pass runs in another thread, and is not divided.
    """

    def __init__(self, backward_ends: bool) -> None:
        self.backward_ends = backward_ends
        self.inside = False
        self.losses: record_function | None = None

    def recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def recorded(*arguments: Any, **options: Any) -> Any:
            if self.inside:
                return function(*arguments, **options)
            self.inside = True
            try:
                with record_function(NETWORKS):
                    output = function(*arguments, **options)
            finally:
                self.inside = False
            logits = getattr(output, "logits", None)
            if logits is not None and logits.requires_grad:
                logits.register_hook(self._end_losses)
            return output

        return recorded

    def recorded_backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def recorded(*arguments: Any, **options: Any) -> Any:
            with record_function(BACKWARD):
                if self.backward_ends:
                    self.losses = record_function(LOSSES_BACKWARD)
                    self.losses.__enter__()  # type: ignore[no-untyped-call]
                try:
                    return function(*arguments, **options)
                finally:
                    self._end_losses()

        return recorded

    def _end_losses(self, gradient: Any = None) -> None:
        if self.losses is not None:
            self.losses.__exit__(None, None, None)
            self.losses = None


def show(case: Case, result: Result) -> None:
    """One row, and its parts, largest first."""
    print(
        f"{case.method:12} {case.network:22} {result.milliseconds:8.1f} ms  {result.images:6.1f} images/s  "
        f"wait {result.wait:4.1f} %  {result.memory / 2**20:7.0f} MiB  not the networks {result.overhead:5.1f} %"
    )
    for part, share in sorted(result.parts.items(), key=lambda item: -item[1]):
        print(f"    {part:18} {share:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", default="source_only,dacs,daformer,t2sda")
    parser.add_argument("--networks", default="lite0")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--preset", help="default: quick on the CPU, default on a GPU")
    parser.add_argument("--size", help="of images, WIDTHxHEIGHT; default: 512x256 on the CPU, 1024x512 on a GPU")
    parser.add_argument("--crop", help="default: all of it on the CPU, 512x512 on a GPU")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    gpu = arguments.device != "cpu"
    size = arguments.size or ("1024x512" if gpu else "512x256")
    flags = {
        "data.source_size": size, "data.target_size": size,
        "data.crop": arguments.crop or ("512x512" if gpu else size),
        "network.weights": "none", "engine.precision": arguments.precision, "engine.compile": arguments.compile,
        "engine.threads": arguments.threads,
    }  # fmt: skip
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    preset = arguments.preset or ("default" if gpu else "quick")
    print(f"{arguments.device}, images {size}, preset {preset}, {arguments.precision}, {arguments.threads} threads")
    # A process for each: peak memory is that of the whole process.
    context = multiprocessing.get_context("spawn")
    over = []
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for network in arguments.networks.split(","):
            for method in arguments.methods.split(","):
                case = Case(method, network, arguments.device, arguments.steps, flags, preset)
                result = pool.submit(measure, case).result()
                show(case, result)
                if not gpu and result.overhead >= TARGET:
                    over.append(f"{method} on {network}")
    if over:
        raise SystemExit(f"Not under {TARGET:.0f} % of a step: {', '.join(over)}")


if __name__ == "__main__":
    main()
