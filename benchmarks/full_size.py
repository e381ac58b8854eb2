"""Two steps of a method at the papers' training size on each of their networks, with random weights: time and memory.

A smoke run: whether the method, the network and the size fit together and into memory, each in a process of its own.
HRDA trains on crops of 1024x1024, the others on 512x512.

    python benchmarks/full_size.py                                      source_only, 1 image a step, CPU
    python benchmarks/full_size.py --method daformer --batch 2 --device cuda --precision bfloat16
    python benchmarks/full_size.py --method sam --preset fcn8s --networks vgg16-fcn8s --stage adapt-1 --crop 512x256
    python benchmarks/full_size.py --method proda --networks resnet101-proda --stage stage1

A stage's layers are random: class ids (pseudo-labels) and soft labels. Batch norms begin with the statistics of such an
image: where they are frozen, random weights would let the activations grow from layer to layer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from udabench.data.batches import to_device
from udabench.engine.backend import arrange, configured, peak_memory, place
from udabench.engine.finite import Finiteness
from udabench.engine.optimizers import Optimizers, make_scaler
from udabench.engine.referee import Referee
from udabench.engine.seeding import seed_everything
from udabench.engine.stages import enter
from udabench.engine.step import Notes, Stepper
from udabench.engine.watch import Watchdog
from udabench.method import Batch, Method, Stage
from udabench.network import Network
from udabench.parts.soft_labels import SOFT, pack
from udabench.plugins import load_registry
from udabench.run.estimate import random_batch
from udabench.run.plan import Plan, Request, make_plan
from udabench.run.setup import bare_method, check_crop
from udabench.size import Size

NETWORKS = ("resnet101-deeplabv2", "mit_b5-daformer", "hrda:mit_b5-daformer")
STEPS = 2
KEPT = 6
"""Classes of a soft label."""
LARGE = {"data.source_size": "2560x1440", "data.target_size": "2048x1024", "data.crop": "1024x1024"}
"""What HRDA trains on."""


class Result(NamedTuple):
    """Of one network: millions of trained parameters, seconds of each step, bytes."""

    parameters: float
    seconds: list[float]
    memory: int


def planned(network: str, arguments: argparse.Namespace) -> Plan:
    """The method's default on GTA5 and Cityscapes, with this network; no file is opened."""
    values: dict[str, Any] = {
        "network.name": network,
        "data.source_batch": arguments.batch,
        "data.target_batch": arguments.batch,
        "engine.device": arguments.device,
        "engine.precision": arguments.precision,
    }
    values |= LARGE if network.startswith("hrda:") else {}
    values |= {"data.crop": arguments.crop} if arguments.crop else {}
    return make_plan(load_registry(), Request(arguments.method, "gta5", "cityscapes", arguments.preset, values))


def measure(network: str, arguments: argparse.Namespace) -> Result:
    """Builds the method, and makes its steps by the engine's own stepper."""
    plan = planned(network, arguments)
    config, device = plan.config, torch.device(arguments.device)
    seed_everything(0, "build")
    method = bare_method(plan)
    check_crop(method, config)
    stage, names = entered(method, arguments.stage), plan.task.classes.names
    place(method, config.engine, device)
    fit_norms(method, config.data.crop, device)
    method.train()
    optimizers = Optimizers(stage, make_scaler(config.engine.precision, device))
    stepper = Stepper(stage, config, device, optimizers, Finiteness(), Referee(len(names)), Watchdog(names))
    batch = with_layers(random_batch(plan, stage, method.target_labels, config.data.crop), stage, len(names))
    seconds: list[float] = []
    with configured(config.engine, device):
        for iteration in range(STEPS):
            began = time.perf_counter()
            stepper.step([arrange(to_device(batch, device), config.engine)], iteration, Notes(iteration + 1))
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    stepper.finite.check()
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return Result(trained / 1e6, seconds, peak_memory(device))


@torch.no_grad()
def fit_norms(method: Method, crop: Size, device: torch.device) -> None:
    """Give the batch norms of each network the statistics of a random image."""
    for network in outermost(method):
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        network(torch.rand(2, 3, *crop, device=device))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def outermost(module: nn.Module) -> Iterator[Network]:
    """The networks of a module, but not those that lie within one of them."""
    for child in module.children():
        if isinstance(child, Network):
            yield child
        else:
            yield from outermost(child)


def entered(method: Method, name: str | None) -> Stage:
    """The stage of this name, the first one without a name, after those before it were entered too."""
    names = [stage.name for stage in method.stages() if stage.iterations]
    if name is not None and name not in names:
        raise SystemExit(f"There is no stage '{name}'; choose one of {', '.join(names)}.")
    last = [stage.name for stage in method.stages()].index(name or names[0])
    for index in range(last + 1):
        enter(method, index)
    return method.stages()[last]


def with_layers(batch: Batch, stage: Stage, classes: int) -> Batch:
    """The batch with random labels in the place of what the stage reads."""
    for name, (domain, artefact) in stage.layers.items():
        samples = batch.source if domain == "source" else batch.target
        assert samples is not None
        layer = (_soft_labels if artefact == SOFT else _labels)(samples.image, classes)
        batch = batch._replace(**{domain: samples._replace(layers={**samples.layers, name: layer})})
    return batch


def _labels(image: Tensor, classes: int) -> Tensor:
    return torch.randint(classes, (len(image), *image.shape[-2:]))


def _soft_labels(image: Tensor, classes: int) -> Tensor:
    return torch.stack([pack(torch.rand(classes, *each.shape[-2:]).softmax(0), KEPT) for each in image])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="source_only")
    parser.add_argument("--preset")
    parser.add_argument("--stage", help="one of the method's stages; the first")
    parser.add_argument("--crop", help="WIDTHxHEIGHT; the preset's")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batch", type=int, default=1, help="images of each domain; the papers' is 2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    device = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    what = f"{arguments.method}, {arguments.batch} + {arguments.batch} images, {arguments.precision}, {device}"
    print(f"{what}: {STEPS} steps")
    print(f"{'network':28} {'parameters':>12} {'first step':>11} {'next':>9} {'peak memory':>12}")
    spawn = multiprocessing.get_context("spawn")
    for network in arguments.networks.split(","):
        with ProcessPoolExecutor(1, spawn) as process:
            result = process.submit(measure, network, arguments).result()
        first, *others = result.seconds
        mean = sum(others) / len(others)
        size = f"{result.memory / 2**30:.1f} GiB"
        print(f"{network:28} {result.parameters:10.1f} M {first:9.2f} s {mean:7.2f} s {size:>12}", flush=True)


if __name__ == "__main__":
    main()
