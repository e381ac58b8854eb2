"""A tiny network, batch and setup for the tests of methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from udabench.config import OptimConfig
from udabench.hookspecs import Entry
from udabench.labels import CITYSCAPES19, LabelSpace
from udabench.method import Batch, Context, Group, Loss, Method, Optimizer, Samples, Stage
from udabench.network import Network, Output
from udabench.registry import Catalogue
from udabench.size import Size
from udabench.task import Task
from udabench.translate import register_translators
from udabench.translate.build import build_translator

ELEVEN = LabelSpace(
    "eleven",
    ("sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car", "person", "bicycle"),
    tuple((i, i, i) for i in range(11)),
)


SMALL = Size(32, 48)


class TinyNetwork(Network):
    """Two convolutions: an encoder (stride 4, with a norm) and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.output_stride, self.feature_channels = classes, 4, (8,)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 1)
        with torch.no_grad():
            self.head.weight.mul_(8)  # opinions that differ from pixel to pixel

    def encode(self, image, domain=None):
        return (self.encoder(image),)

    def forward(self, image, domain=None):
        return self.decode(self.encode(image))

    def decode(self, features):
        return Output(self.head(features[-1]), features)

    def parameter_groups(self):
        return {"encoder": list(self.encoder.parameters()), "head": list(self.head.parameters())}


@dataclass
class FakeSetup:
    """A setup without a registry of networks."""

    classes: LabelSpace = CITYSCAPES19
    iterations: int = 5
    optim: OptimConfig = field(default_factory=OptimConfig)
    crop: Size = SMALL
    target_size: Size = SMALL
    batches: dict[str, int] = field(default_factory=lambda: {"source": 2, "target": 2})

    @property
    def task(self) -> Task:
        return Task("here", "there", self.classes, self.classes.averages)

    def network(self, weights: str | None = None, options: dict[str, Any] | None = None) -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return TinyNetwork(len(self.classes))

    def translator(self, name: str, options: dict[str, Any] | None = None):
        catalogue = Catalogue("translator")
        entries: dict[str, Entry] = register_translators()
        for key, entry in entries.items():
            catalogue.add(key, entry, "udabench")
        return build_translator(catalogue, name, options or {})

    def segmenter(self, network: Network, *heads: nn.Module) -> Optimizer:
        modules = [network, *heads]
        return Optimizer("adamw", [Group(list(m.parameters()), 1e-3) for m in modules])


def samples(classes: int, label: bool, seed: int, size=(32, 48), context: int = 0) -> Samples:
    """Two images of coloured blocks, and blocks of labels; a hundredth of the pixels unknown."""
    rng = torch.Generator().manual_seed(seed)
    height, width = size
    coarse = torch.randint(classes, (2, height // 8, width // 8), generator=rng)
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[torch.rand(labels.shape, generator=rng) < 0.01] = 255
    blocks = torch.rand(2, 3, (height + context) // 8, (width + context) // 8, generator=rng).round()
    image = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    image = 0.8 * image + 0.2 * torch.rand(image.shape, generator=rng)
    corner = torch.tensor([0, context])
    crop = torch.stack([image[i, :, c : c + height, c : c + width] for i, c in enumerate(corner.tolist())])
    return Samples(
        image=crop,
        label=labels if label else None,
        names=("a", "b"),
        valid=None,
        box=torch.tensor([[0, 0, height, width]] * 2),
        size=Size(*size),
        flipped=torch.zeros(2, dtype=torch.bool),
        layers={},
        context=Context(image, corner, corner) if context else None,
    )


def batch(classes: int = 19, target_labels: bool = False, **options: Any) -> Batch:
    """A batch of both domains."""
    return Batch(samples(classes, True, 1, **options), samples(classes, target_labels, 2, **options))


def run_step(method, data: Batch, iteration: int = 3, seed: int = 0) -> tuple[dict[str, Loss], list[Any], Any]:
    """One step, each loss back-propagated as it comes. Returns the losses by name, the other events and the result."""
    method.train()
    step = method.stages()[0].step(data, iteration, torch.Generator().manual_seed(seed))
    losses, others = {}, []
    while True:
        try:
            event = next(step)
        except StopIteration as end:
            return losses, others, end.value
        if isinstance(event, Loss):
            event.value.backward()
            losses[event.name] = event
        else:
            others.append(event)


def stage_of(method: Method, name: str) -> Stage:
    """A stage by its name."""
    return next(stage for stage in method.stages() if stage.name == name)


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    """The gradients that arrived, by name."""
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def whole_images(count: int) -> list[Samples]:
    """Unlabelled target images as a pass sees them, one at a time."""
    pictures = [samples(19, False, seed) for seed in range(count)]
    return [
        each._replace(image=each.image[:1], names=(f"image {i}",), box=each.box[:1], flipped=each.flipped[:1])
        for i, each in enumerate(pictures)
    ]


class MemoryWorkspace:
    """A Workspace whose artefacts lie in memory: of one version, of the target alone."""

    def __init__(self, images: list[Samples]) -> None:
        self.samples = images
        self.values: dict[tuple[str, str], torch.Tensor] = {}
        self.tables: dict[str, dict[str, torch.Tensor]] = {}

    def images(self, domain, skip_done=None, share=False):
        assert domain == "target"
        yield from (each for each in self.samples if (skip_done, each.names[0]) not in self.values)

    def count(self, domain):
        return len(self.samples)

    def has(self, artefact, name):
        return (artefact, name) in self.values

    def write(self, artefact, name, value):
        self.values[artefact, name] = value.clone()

    def read(self, artefact, name):
        return self.values[artefact, name]

    def write_table(self, artefact, values):
        self.tables[artefact] = dict(values)

    def read_table(self, artefact):
        return self.tables.get(artefact)
