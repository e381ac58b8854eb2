"""Two processes that train together: ``python world_fakes.py FOLDER main``, or ``more``, or ``gpu``.

Each scene leaves ``<scene>/<rank>.json``: what its function returned on that rank, or the error that it met.
"""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engine_fakes
import torch
from engine_fakes import FakeData, FakeMethod, import_all
from torch import nn
from world_parity import LEARNING, MORE, PARITY, gpu_parity, parity
from world_stage import Scene, play

from udabench import world
from udabench.config import EngineConfig, EvaluateConfig
from udabench.data.locate import open_dataset
from udabench.engine.backend import place
from udabench.engine.folder import RunFolder
from udabench.engine.ranks import average_gradients, average_running
from udabench.engine.workspace import RunWorkspace
from udabench.evaluate.evaluator import evaluate
from udabench.labels import CITYSCAPES19
from udabench.method import Batch, Loss, Stage
from udabench.task import Task
from udabench.testing import FakeNetwork, dataset, fake_registry

# The world's functions, by hand: rank r has r + 1, and so on


def functions(folder: Path) -> dict[str, Any]:
    me = world.rank()
    mine = torch.tensor([me + 1.0, 10.0])
    module = nn.BatchNorm1d(2)
    module.weight.data.fill_(me)
    world.spread(module)
    order = folder / "order"
    with world.in_turn(), order.open("a") as file:
        file.write(f"{me}")
    return {
        "place": (me, world.world_size(), world.leads()),
        "total": world.total(mine).tolist(),
        "per_rank": world.per_rank(torch.tensor([me, 0])).tolist(),
        "gather": world.gather(mine).tolist(),
        "gather_flags": world.gather(torch.tensor([me == 1])).tolist(),
        "own": world.own(torch.arange(4)).tolist(),
        "gather_values": world.gather_values(f"rank {me}"),
        "highest": world.highest(7 * me),
        "spread": module.weight.tolist(),
        "order": order.read_text(),
    }


def gradients(folder: Path) -> dict[str, Any]:
    """The first has a gradient on both ranks, the second on rank 1 alone, the third on none."""
    me = world.rank()
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 3.0]) * (me + 1)
    if me == 1:
        parameters[1].grad = torch.tensor([4.0, 6.0])
    average_gradients(parameters)
    return {"averaged": [None if p.grad is None else p.grad.tolist() for p in parameters]}


def running(folder: Path) -> dict[str, Any]:
    """One norm in training, one in evaluation; the input is 1 on rank 0 and 3 on rank 1."""
    norms = nn.ModuleList([nn.BatchNorm1d(1, momentum=0.5), nn.BatchNorm1d(1, momentum=0.5).eval()])
    image = torch.full((2, 1, 2), 2.0 * world.rank() + 1) + torch.tensor([-1.0, 1.0])
    for norm in norms:
        norm(image)
    average_running(norms)
    return {"mean": [float(n.running_mean) for n in norms], "var": [float(n.running_var) for n in norms]}


def converted(folder: Path) -> dict[str, Any]:
    """Norms are exchanged; their parameters and the keys of the state stay."""
    network = FakeNetwork(19)
    before = list(network.parameters()), list(network.state_dict())
    for _ in range(2):
        place(network, EngineConfig(sync_norms=True), torch.device("cpu"))
    kept = all(a is b for a, b in zip(before[0], network.parameters(), strict=True))
    kinds = {type(module).__name__ for module in network.modules()}
    return {"kept": kept, "keys": before[1] == list(network.state_dict()), "kinds": sorted(kinds)}


def passes(folder: Path) -> dict[str, Any]:
    method = FakeMethod()
    workspace = RunWorkspace(
        folder / "artefacts", FakeData(RunFolder(folder), method.stages()).images, torch.device("cpu")
    )
    gathered = [image.names[0] for image in workspace.images("target")]
    treated = []
    for image in workspace.images("target", skip_done="mean"):
        treated.append(image.names[0])
        workspace.write("mean", image.names[0], image.image.mean((2, 3)))
    read = [float(workspace.read("mean", name).sum()) for name in gathered]
    workspace.write_table("sums", {"sum": torch.tensor(read).sum()})
    table = workspace.read_table("sums")
    again = [image.names[0] for image in workspace.images("target", skip_done="mean")]
    return {"gathered": gathered, "treated": treated, "read": read, "sum": float(table["sum"]), "again": again}


def evaluation(folder: Path) -> dict[str, Any]:
    """Five images in lots of two: rank 0 has the first and the third lot."""
    torch.manual_seed(0)
    network = FakeNetwork(19).eval()
    data = folder.parent / "data"
    if world.leads():
        dataset.write_fake_data(data)
    world.meet()
    split = open_dataset(fake_registry(), dataset.TARGET, "train", {dataset.TARGET: data / dataset.TARGET})
    task = Task(dataset.SOURCE, dataset.TARGET, CITYSCAPES19, CITYSCAPES19.averages)
    seen: list[int] = []

    def predict(samples: Any) -> torch.Tensor:
        seen.append(len(samples.names))
        return network(samples.image).logits

    found = evaluate(
        predict, split, task, EvaluateConfig(batch=2, limit=5), dataset.SIZE, torch.device("cpu"), probe="entropy"
    )
    return {
        "seen": seen,
        "names": found.names,
        "matrices": found.matrices.tolist(),
        "means": {key: repr(value) for key, value in found.means.items()},
        "entropy": repr(found.entropy),
        "unlabelled": repr(found.unlabelled),
    }


# On a GPU, which both processes share: NCCL would want one each


def sync_norms(folder: Path) -> dict[str, Any]:
    """A norm over the whole batch, against the halves of it on two ranks: outputs, gradients, running statistics."""
    torch.manual_seed(0)
    image, factor = torch.randn(2, 4, 3, 8, 8, device="cuda").unbind()
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).cuda()
    shared = copy.deepcopy(plain)
    place(shared, EngineConfig(sync_norms=True), torch.device("cuda"))
    (plain(image) * factor).mean().backward()
    out = shared(world.own(image))
    (out * world.own(factor)).mean().backward()
    average_gradients(list(shared.parameters()))
    average_running(shared)
    pairs = [
        *((p.grad, q.grad) for p, q in zip(plain.parameters(), shared.parameters(), strict=True)),
        *zip(plain[1].buffers(), shared[1].buffers(), strict=True),
        (world.own(plain(image)), shared(world.own(image))),
    ]
    kinds = [type(module).__name__ for module in shared]
    return {"kinds": kinds, "differences": [float((a.double() - b.double()).abs().max()) for a, b in pairs]}


# Runs of the engine's fake method, whose norms learn: stopped, killed, poisoned


class SharedMethod(FakeMethod):
    """Notes where its steps are; may send itself a signal, or lose its way, on rank 1 alone."""

    accident: Callable[[int], None] = staticmethod(lambda iteration: None)
    poisoned = False

    def step(self, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        here = world.rank() == 1 and "pseudo" not in batch.target.layers
        if here:
            self.accident(iteration)
        for event in super().step(batch, iteration, rng):
            if here and self.poisoned and iteration == 2 and isinstance(event, Loss) and event.name == "source":
                yield event._replace(value=event.value * float("nan"))
            else:
                yield event


class SharedData(FakeData):
    """Every rank has its rows of the batches."""

    def batches(self, stage: Stage, version: int, start: int, stop: int) -> Iterator[Batch]:
        for batch in super().batches(stage, version, start, stop):
            yield Batch(*(row(half) for half in batch))


def row(samples: Any) -> Any:
    return samples._replace(
        image=world.own(samples.image),
        label=None if samples.label is None else world.own(samples.label),
        names=samples.names[world.rank() : world.rank() + 1],
        box=world.own(samples.box),
        flipped=world.own(samples.flipped),
        layers={name: world.own(layer) for name, layer in samples.layers.items()},
    )


def train(folder: Path, accident: Callable[[int], None] = lambda iteration: None, poisoned: bool = False) -> Any:
    method = SharedMethod()
    method.accident, method.poisoned = accident, poisoned
    data = SharedData(RunFolder(folder), method.stages())
    config = engine_fakes.config_of(eval_every=3)
    _, result = engine_fakes.run(folder, method, config, open_batches=data.batches, evaluate=engine_fakes.evaluate)
    state = {key: value.double().sum().item() for key, value in method.state_dict().items()}
    return {"images": result.images_seen, "state": state}


def at(iteration: int, number: int) -> Callable[[int], None]:
    """This process gets a signal in that step."""
    return lambda now: os.kill(os.getpid(), number) if now == iteration else None


def stopped(folder: Path) -> Any:
    return train(folder, at(2, signal.SIGTERM))


def killed(folder: Path) -> Any:
    return train(folder, at(3, signal.SIGKILL))


def poisoned(folder: Path) -> Any:
    return train(folder, poisoned=True)


SCENES: tuple[Scene, ...] = (functions, gradients, running, converted, passes, evaluation, poisoned)


def main(root: Path) -> None:
    torch.set_num_threads(1)
    import_all()
    for name, run in PARITY.items():
        parity(root, name, *run)
    for scene in SCENES:
        play(root / scene.__name__, scene)
    play(root / "alone", evaluation, 1)
    play(root / "whole", train)
    for accident in (stopped, killed):
        folder = root / accident.__name__
        play(folder, accident)
        (folder / "0.json").rename(folder / "before.json")
        play(folder, train)


def main_more(root: Path) -> None:
    torch.set_num_threads(1)
    import_all()
    for name, run in MORE.items():
        parity(root, name, *run)
    for name, run in LEARNING.items():
        parity(root, name, *run, sizes=[2])


def main_gpu(root: Path) -> None:
    """The parent must not touch the GPU before it forks."""
    play(root / "sync_norms", sync_norms)
    gpu_parity(root)


if __name__ == "__main__":
    {"main": main, "more": main_more, "gpu": main_gpu}[sys.argv[2]](Path(sys.argv[1]))
