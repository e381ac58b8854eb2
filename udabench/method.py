"""The method contract. Read this and ``hookspecs.py``, and you can write a plugin.

A method declares *stages*. A stage names a *step*: a generator that takes a batch and yields named losses. The engine
owns the loop, the clock, the schedules and the checkpoints; it back-propagates each loss as it is yielded into the
parameters of the optimisers which that loss names, and no others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from torch import Generator as Rng
from torch import Tensor, nn

from udabench.config import MethodConfig, OptimConfig
from udabench.errors import PluginError
from udabench.network import Network, Output
from udabench.schedules import PolySchedule, Schedule
from udabench.size import Size
from udabench.task import Task

if TYPE_CHECKING:
    from udabench.translate.base import Translator

Domain = Literal["source", "target"]


class Context(NamedTuple):
    """The larger crop around the shared one, where a stage asked for it.

    Attributes:
        image: N 3 Hc Wc, RGB in [0, 1].
        top, left: N int64 each, where ``Samples.image`` lies in it.
    """

    image: Tensor
    top: Tensor
    left: Tensor


class Samples(NamedTuple):
    """Images of one domain.

    Attributes:
        image: N 3 H W, RGB in [0, 1]; the network normalises, a translator scales to what it needs.
        label: N H W int64, 255 = unknown; None where the domain is unlabelled.
        names: the samples' names.
        valid: N H W bool, False on padding; None where nothing was padded.
        box: N 4 int64, ``(top, left, height, width)`` of the crop in the resized image.
        size: height and width of the resized image.
        flipped: N bool, whether the crop was mirrored.
        layers: name -> N ... H W: artefacts that a stage asked for, cut and flipped with the image (but ``uncut``).
        context: the larger crop, where the stage asked for it.
        scaled: N 2 int64, height and width to which scale jitter brought each resized image before the crop: ``box``
            lies there, and what of it goes beyond is padding. None: no jitter.
    """

    image: Tensor
    label: Tensor | None
    names: tuple[str, ...]
    valid: Tensor | None
    box: Tensor
    size: Size
    flipped: Tensor
    layers: Mapping[str, Tensor]
    context: Context | None = None
    scaled: Tensor | None = None

    @property
    def whole(self) -> Tensor:
        """Height and width, N 2 int64, of the images that the boxes lie in."""
        return self.box.new_tensor([self.size] * len(self.box)) if self.scaled is None else self.scaled


class Batch(NamedTuple):
    """One step's input. A domain that the stage did not ask for is None.

    Of several processes each gets its part: what is taken over the batch goes through :mod:`udabench.world`.
    """

    source: Samples | None
    target: Samples | None


class Loss(NamedTuple):
    """A value to back-propagate now.

    Attributes:
        name: its name in the log.
        value: scalar tensor. Losses of one graph are summed into one Loss (a second backward would fail).
        trains: the optimisers (of the stage) whose parameters receive the gradient.
        parts: summands, detached, for the log.
        outputs: what networks returned that the value was computed from, by a name for the image (``source``,
            ``mixed``). An outer method may add a term to the value before the engine sees it.
    """

    name: str
    value: Tensor
    trains: str | tuple[str, ...] = "segmenter"
    parts: Mapping[str, Tensor] = {}
    outputs: Mapping[str, Output] = {}


class Update(NamedTuple):
    """Step this optimiser now instead of after the last yield."""

    optimizer: str


class Scalar(NamedTuple):
    """A value for the log: a 0-d tensor on any device. It is read only on steps that are logged."""

    name: str
    value: Tensor


class Panel(NamedTuple):
    """A picture for the log, made only on steps that draw: N 3 H W in [0, 1], N H W float in [0, 1] (a heat map), or
    N H W int64 (class ids)."""

    name: str
    picture: Callable[[], Tensor]


class Probe(NamedTuple):
    """Labels to be scored by the engine's referee against the target's training labels, which no method sees.

    Attributes:
        name: its name in the log.
        labels: N H W int64, 255 where nothing is claimed; the grid of the crop.
        samples: the samples that they belong to.
    """

    name: str
    labels: Tensor
    samples: Samples


class Shared(NamedTuple):
    """What a step may *return* (``return Shared(...)`` at its end) for a method around it; the engine ignores it.

    An outer method gets it with ``shared = yield from inner.step(batch, iteration, rng)``. A masked-consistency add-on
    (MIC) trains ``network`` on its own view of ``samples`` against ``label``, weighted by ``weight``.

    Attributes:
        network: the one that learns.
        samples: the images that were labelled, before any strong augmentation.
        label: N H W int64, 255 where nothing is claimed.
        weight: N H W float, of each pixel's loss.
    """

    network: Network
    samples: Samples
    label: Tensor
    weight: Tensor


class Remark(NamedTuple):
    """A warning of a pass for whoever watches the run: terminal and log.txt."""

    text: str


Event = Loss | Update | Scalar | Panel | Probe
Noted = Scalar | Panel | Probe | Remark
"""What a pass may yield."""
Returned = TypeVar("Returned")
Step = Callable[[Batch, int, Rng], Generator[Event, None, Any]]
"""``step(batch, iteration, rng)``. ``rng`` is a CPU generator that is a function of (seed, stage, iteration); the
generator may *return* what an outer method needs: a :class:`Shared`."""


def changed(
    events: Generator[Event, None, Returned], change: Callable[[Event], Event]
) -> Generator[Event, None, Returned]:
    """An inner method's step with each event changed on its way: ``shared = yield from changed(inner.step(...), f)``.

    Each is changed before the inner step goes on, so a loss may still be built on its graph.
    """
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                returned: Returned = end.value
                return returned
            yield change(event)


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and weight decay."""

    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Optimizer:
    """An optimiser, declared: the engine builds, schedules, scales, steps and stores it."""

    kind: Literal["adamw", "adam", "sgd"]
    groups: Sequence[Group]
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=PolySchedule)


class Workspace(Protocol):
    """What ``prepare`` gets: every training image of a domain, and a place for named artefacts.

    Artefacts lie under ``artefacts/<stage>/<iteration>/<name>/``, one file a sample, written atomically; a sample whose
    file is there is skipped when a killed pass goes on.
    """

    def images(self, domain: Domain, skip_done: str | None = None, share: bool = False) -> Iterator[Samples]:
        """Whole resized images, one at a time, the target's unlabelled; those with artefact ``skip_done`` left out.

        Of several processes each walks over all images, so that what a pass gathers is of the whole set. With ``share``
        or ``skip_done`` a pass treats every image for itself: then they share the images; each walks to the end of its
        own, where it waits for the others.
        """

    def count(self, domain: Domain) -> int:
        """How many images there are; none is opened."""

    def write(self, artefact: str, name: str, value: Tensor) -> None:
        """H W integer, or C H W float in [0, 1]: stored as PNG (ids, pictures) or safetensors (anything else)."""

    def has(self, artefact: str, name: str) -> bool:
        """Whether :meth:`write` has stored it: a pass that goes on need not make it again."""

    def read(self, artefact: str, name: str) -> Tensor:
        """What :meth:`write` stored. Raises DataError when it is missing."""

    def write_table(self, artefact: str, values: Mapping[str, Tensor]) -> None:
        """Named tensors that belong to the whole pass (thresholds, prototypes)."""

    def read_table(self, artefact: str) -> Mapping[str, Tensor] | None:
        """What :meth:`write_table` stored; None while there is nothing."""


def no_step(batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
    """The step of a stage without iterations."""
    yield from ()


@dataclass(frozen=True)
class Mining:
    """Crops around rare classes (CBST's patch mining).

    With ``chance`` a crop is drawn around a class: one of those to be mined that the layer shows in this image, by lot,
    then one of its pixels; the crop is centred on it as far as it then stays in the image. Where the image shows none
    of them it is drawn as always. Which classes: ``workspace.write_table(table, {"classes": ids})`` (int64; it may be
    empty) in a ``prepare``; the table in force goes with the layers in force, so a resumed run draws the same crops.

    Attributes:
        layer: of ``Stage.layers``, H W class ids; the crops of its domain are mined.
        table: name of the table with the classes.
        chance: of each crop (CRST code: 0.8).
    """

    layer: str
    table: str
    chance: float = 0.8


Pass = Callable[[Workspace], Iterator[Noted] | None]
"""``prepare(workspace)``: a plain function, or a generator of what is to be logged of the pass."""


@dataclass(frozen=True)
class Stage:
    """A part of a method's training. Declared, not run.

    ``prepare`` runs under eval mode, ``no_grad`` and the run's autocast; modes are as before afterwards, while buffers
    keep what it gave them (statistics, prototypes). What it yields is logged once, at the end of the pass: a Scalar's
    mean, a Panel's first picture, a Probe's scores over all of its samples (of a pass that was killed and goes on,
    those that were left).

    Attributes:
        name: unique in the method.
        iterations: length; 0: only ``prepare``, a pass of its own (then no step and no optimisers are needed).
        step: the generator of losses.
        optimizers: by the names that losses use.
        domains: what the batch holds; the other domain is never opened.
        layers: layer name in ``Samples.layers`` -> ``(domain, artefact)`` that it is read from.
        uncut: layers that come whole and as they were written, of whatever grid, however the crop lies
            (:func:`udabench.parts.soft_labels.cut` cuts them).
        context: ask for a larger crop of this size around the shared one.
        mining: draw crops around rare classes.
        source_share: the stage draws from so large a share of the source's images (rounded down, one at least), a
            random one of its own (CBST's source portion). Needs ``data.sampler = uniform`` where it is below 1.
        start: idempotent; re-initialises or switches networks when the stage is entered, before ``prepare``. It is also
            called on a twin with random weights, to see how large a run's checkpoints become: it reads no artefacts.
        prepare: looks at every training image of a domain and writes artefacts.
        prepare_every: repeat ``prepare`` each so many iterations; None: once, when the stage is entered.
        pixel_bytes: what a pass writes of an image, in bytes a pixel, for the estimate of the disk that a run takes.
            One label map as a PNG takes 1/25 to 1/35; soft labels take some bytes: say so.
        after_step: under no_grad, after the optimisers (an EMA that follows them).
    """

    name: str
    iterations: int
    step: Step = no_step
    optimizers: Mapping[str, Optimizer] = field(default_factory=dict)
    domains: tuple[Domain, ...] = ("source", "target")
    layers: Mapping[str, tuple[Domain, str]] = field(default_factory=dict)
    uncut: tuple[str, ...] = ()
    context: Size | None = None
    mining: Mining | None = None
    source_share: float = 1.0
    start: Callable[[], None] | None = None
    prepare: Pass | None = None
    prepare_every: int | None = None
    pixel_bytes: float = 1 / 16
    after_step: Callable[[int], None] | None = None


class Setup(Protocol):
    """What a method is built from. It holds no data set: a method cannot reach a label that it is not given."""

    @property
    def task(self) -> Task: ...

    @property
    def iterations(self) -> int:
        """Training steps; a method with stages shares them out."""

    @property
    def optim(self) -> OptimConfig: ...

    @property
    def crop(self) -> Size:
        """Size of ``Samples.image``."""

    @property
    def target_size(self) -> Size:
        """Size to which target images are resized before the crop."""

    @property
    def batches(self) -> Mapping[Domain, int]:
        """Images of each domain in a step's batch, those of all processes together."""

    def network(self, weights: str | None = None, options: Mapping[str, Any] | None = None) -> Network:
        """A new network with its initial weights: those of the run that this one begins from (``--init-from``, another
        method's), else as configured.

        Args:
            weights: ``imagenet``, a published name, a file or ``none``, in the place of either.
            options: over the configured ones.
        """

    def translator(self, name: str, options: Mapping[str, Any] | None = None) -> Translator:
        """A translation engine from the registry."""

    def method(
        self, name: str, values: Mapping[str, Any] | MethodConfig | None = None, iterations: int | None = None
    ) -> Method:
        """Another method, for those that wrap one.

        Args:
            values: as its own part of the configuration holds them.
            iterations: how many of the run's steps it shares out; None: all.
        """

    def segmenter(self, network: Network, *heads: nn.Module) -> Optimizer:
        """The configured optimiser over a network, further modules (projectors) at the head's learning rate."""


class Method(nn.Module, ABC):
    """A method plugin. All trained state is a submodule or a buffer (teacher, prototypes, discriminators).

    ``target_labels``, ``accumulates``, ``shares`` and ``outputs`` are read from the built method: a method around
    another may set them in its constructor to what the inner one says.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    target_labels: bool = False
    """Permission to train on the target's labels (``oracle``). The record and the tables show it."""
    accumulates: bool = False
    """Whether gradient accumulation leaves the method what it is (no EMA, no statistics of the batch)."""
    shares: bool = False
    """Whether its steps on the target return a :class:`Shared`: what a method around it may need."""
    outputs: tuple[str, ...] = ()
    """The names that its steps use in :attr:`Loss.outputs`: where a method around it may add a term."""
    advice: str = ""
    """What else to try where a loss is no number: the end of the engine's message."""

    def __init__(self, config: MethodConfig, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """What is trained, in order."""

    @abstractmethod
    def predict(self, samples: Samples) -> Tensor:
        """The logits that are evaluated, N C h w, before upsampling."""

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        """All networks worth evaluating, the paper's choice first (``student``, ``teacher``)."""
        return {"student": self.predict}

    def look(self, samples: Samples) -> Samples:
        """A test-time transform (a translator into the source's look): called once on whole unlabelled images, before
        they are mirrored or cut into windows, by the evaluation and by ``udabench predict``. The size must stay."""
        return samples

    @property
    def translated_input(self) -> bool:
        """Whether :meth:`look` changes what is evaluated; the record shows it."""
        return type(self).look is not Method.look

    def network_of_record(self) -> Network:
        """The network whose size and initial weights the record states: the first that is a submodule."""
        for module in self.modules():
            if isinstance(module, Network):
                return module
        raise PluginError(
            f"{type(self).__name__} has no Network among its submodules, so the record cannot say what was trained. "
            "Assign setup.network() in __init__, or override network_of_record()."
        )

    @classmethod
    def why_not(cls, task: Task, network: str) -> str | None:
        """A reason to decline this task or network, or None; the table then says why."""
        return None
