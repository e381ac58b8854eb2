"""A tiny method with all that a checkpoint must hold, and a run of it: ``python engine_fakes.py FOLDER``."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.config import RunConfig
from udabench.engine.artefacts import Artefacts
from udabench.engine.evaluation import Evaluated
from udabench.engine.folder import RunFolder
from udabench.engine.train import TrainResult, train
from udabench.labels import LabelSpace
from udabench.method import (
    Batch,
    Group,
    Loss,
    Method,
    Optimizer,
    Panel,
    Probe,
    Samples,
    Scalar,
    Stage,
    Update,
    Workspace,
)
from udabench.schedules import PolySchedule
from udabench.size import Size
from udabench.task import Task

SIZE = Size(8, 8)
CLASSES = LabelSpace("three", ("road", "car", "sky"), ((128, 0, 0), (0, 128, 0), (0, 0, 128)))
TASK = Task("a", "b", CLASSES, CLASSES.averages)
DEVICE = torch.device("cpu")
NAMES = ("one", "two", "three")


def samples(seed: int, names: tuple[str, ...] = ("one", "two"), labelled: bool = True) -> Samples:
    rng = torch.Generator().manual_seed(seed)
    count = len(names)
    return Samples(
        image=torch.rand(count, 3, *SIZE, generator=rng),
        label=torch.randint(3, (count, *SIZE), generator=rng) if labelled else None,
        names=names,
        valid=None,
        box=torch.tensor([[0, 0, *SIZE]] * count),
        size=SIZE,
        flipped=torch.zeros(count, dtype=torch.bool),
        layers={},
    )


def batch(iteration: int) -> Batch:
    return Batch(samples(2 * iteration), samples(2 * iteration + 1, labelled=False))


class FakeMethod(Method):
    """Student, EMA teacher and discriminator; a warm-up stage, then a stage that refreshes pseudo-labels."""

    def __init__(self, lengths: tuple[int, int] = (5, 8)) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(1)
        self.lengths = lengths
        self.student = self._network()
        self.teacher = self._network().requires_grad_(False)
        self.discriminator = nn.Conv2d(3, 1, 3, padding=1)
        self.register_buffer("priors", torch.zeros(3))
        self.prepared: list[tuple[str, int]] = []

    def _network(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(8, 3, 1)
        )

    def stages(self) -> list[Stage]:
        segmenter = Optimizer("adamw", [Group(tuple(self.student.parameters()), 1e-2, 0.01)], schedule=PolySchedule(2))
        discriminator = Optimizer("sgd", [Group(tuple(self.discriminator.parameters()), 1e-2)], {"momentum": 0.9})
        both = {"segmenter": segmenter, "discriminator": discriminator}
        return [
            Stage("warm", self.lengths[0], self.step, both, after_step=self.follow),
            Stage(
                "adapt",
                self.lengths[1],
                self.step,
                both,
                layers={"pseudo": ("target", "pseudo")},
                start=self.begin_adapting,
                prepare=self.prepare,
                prepare_every=3,
                after_step=self.follow,
            ),
        ]

    def step(self, batch: Batch, iteration: int, rng: torch.Generator) -> Iterator[Any]:
        source, target = batch.source, batch.target
        noise = 0.1 * torch.rand(source.image.shape, generator=rng)
        loss = F.cross_entropy(self.student(source.image + noise), source.label)
        yield Loss("source", loss, parts={"half": loss.detach() / 2})
        logits = self.student(target.image)
        labels = target.layers.get("pseudo")
        if labels is not None:
            yield Loss("target", F.cross_entropy(logits + self.priors.view(1, 3, 1, 1), labels))
            yield Probe("pseudo", labels, target)
            yield Panel("pseudo", lambda: labels)
            logits = self.student(target.image)
        fool = self.discriminator(logits.softmax(1))
        yield Loss("adversarial", F.binary_cross_entropy_with_logits(fool, torch.ones_like(fool)))
        told = self.discriminator(logits.detach().softmax(1))
        yield Loss("told", F.binary_cross_entropy_with_logits(told, torch.zeros_like(told)), "discriminator")
        yield Update("discriminator")
        yield Scalar("confidence", logits.softmax(1).amax(1).mean())

    @torch.no_grad()
    def follow(self, iteration: int) -> None:
        for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)

    def begin_adapting(self) -> None:
        nn.init.normal_(self.discriminator.weight)
        self.teacher.load_state_dict(self.student.state_dict())

    @torch.no_grad()
    def prepare(self, workspace: Workspace) -> None:
        self.teacher.eval()
        for image in workspace.images("target", skip_done="pseudo"):
            labels = self.teacher(image.image + 0.1 * torch.rand_like(image.image)).argmax(1)[0]
            workspace.write("pseudo", image.names[0], labels)
            slow_down()
        counts = torch.zeros(3)
        for name in NAMES:
            counts += torch.bincount(workspace.read("pseudo", name).flatten(), minlength=3)
        workspace.write_table("priors", {"counts": counts})
        self.priors.copy_(counts / counts.sum())

    def predict(self, samples: Samples) -> Tensor:
        return self.student(samples.image)


def slow_down() -> None:
    time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))


class FakeData:
    """Opens streams of batches and whole images; counts what was asked for."""

    def __init__(self, folder: RunFolder, stages: list[Stage]) -> None:
        self.artefacts = Artefacts(folder.artefacts, stages)
        self.opened: list[tuple[str, int, int, int]] = []
        self.closed = 0

    def batches(self, stage: Stage, version: int, start: int, stop: int) -> Iterator[Batch]:
        self.opened.append((stage.name, version, start, stop))
        return self._stream(self.artefacts.readers(stage, version), start, stop)

    def _stream(self, readers: dict[str, Any], start: int, stop: int) -> Iterator[Batch]:
        try:
            for iteration in range(start, stop):
                slow_down()
                made = batch(iteration)
                layers = {k: torch.stack([r.read(n) for n in made.target.names]) for k, r in readers.items()}
                yield made._replace(target=made.target._replace(layers=layers))
        finally:
            self.closed += 1

    def images(self, domain: str, skip: Callable[[str], bool]) -> Iterable[Samples]:
        for index, name in enumerate(NAMES):
            if not skip(name):
                yield samples(1000 + index, (name,), labelled=False)


def config_of(**engine: Any) -> RunConfig:
    defaults = {"log_every": 2, "panel_every": 4, "checkpoint_every": 2, "device": "cpu", "threads": 1}
    return RunConfig(method="fake", source="a", engine={**defaults, **engine})


def evaluate(method: Method, iteration: int) -> Evaluated:
    torch.rand(3)
    confidence = method.predict(samples(7)).softmax(1).amax(1).mean()
    return Evaluated({"confidence": float(confidence)})


def run(
    folder: Path, method: Method | None = None, config: RunConfig | None = None, **arguments: Any
) -> tuple[Method, TrainResult]:
    method = method or FakeMethod()
    run_folder = RunFolder(folder)
    data = FakeData(run_folder, list(method.stages()))
    arguments = {"open_batches": data.batches, "open_images": data.images, **arguments}
    console = arguments.pop("console", Console(file=io.StringIO()))
    result = train(
        method,
        config or config_of(),
        TASK,
        run_folder,
        arguments.pop("open_batches"),
        DEVICE,
        console=console,
        **arguments,
    )
    return method, result


def full_run(folder: Path) -> None:
    """The run whose end every kill is compared with."""
    run(folder, config=config_of(eval_every=3), evaluate=evaluate, truth=lambda asked: samples(1, asked.names).label)


def die_at_call(number: int, what: str) -> None:
    """Kill this process with SIGKILL at the ``number``-th ``fsync``, or at the ``number``-th rename."""
    calls = 0

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    if what == "fsync":
        os.fsync = dying(os.fsync)
    else:
        Path.rename = dying(Path.rename)  # type: ignore[method-assign]
        Path.replace = dying(Path.replace)  # type: ignore[method-assign]


def in_child(folder: Path, before: Callable[[], None] = lambda: None, kill_after: float | None = None) -> int:
    """The run in a forked process: what ended it (negative: a signal). It may be killed after so many seconds."""
    child = os.fork()
    if child == 0:
        before()
        full_run(folder)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def import_all() -> None:
    """What a first step imports takes seconds; children that are forked afterwards have it. (No backward: its threads
    would not survive a fork.)"""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.AdamW([parameter]).step()
    Image.init()


def serve(root: Path, points: list[str]) -> None:
    """A run in ``root/whole``, and for each point (``fsync:7``, ``rename:3``, ``random:5``) one in ``root/<point>``
    that is killed there and then goes on. Random: killed so many times, whenever."""
    import_all()
    assert in_child(root / "whole") == 0
    for point in points:
        what, number = point.split(":")
        folder = root / point
        if what == "random":
            kill_at_random(folder, int(number))
        elif in_child(folder, lambda what=what, number=number: die_at_call(int(number), what)) != -signal.SIGKILL:
            print(f"{point} was never reached")
        assert in_child(folder) == 0, point


def kill_at_random(folder: Path, times: int) -> None:
    draw = random.Random(times)
    os.environ["FAKE_SLEEP"] = "0.02"
    killed = [in_child(folder, kill_after=draw.uniform(0.05, 0.8)) for _ in range(times)]
    os.environ["FAKE_SLEEP"] = "0"
    print(f"random: {killed.count(-signal.SIGKILL)} of {times} were killed before their end")


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(Path(sys.argv[1]), sys.argv[2:])
