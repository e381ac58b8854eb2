"""The record of a run: schema version 1."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from udabench.config import method_title

if TYPE_CHECKING:
    from udabench.network import WeightsReport

SCHEMA_VERSION = 1

Share = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value, return_type=float | None, when_used="json"),
]
"""A metric in 0..1, or NaN where it is undefined (``null`` in JSON)."""

FILE_NAME = r"^[A-Za-z0-9_+=-][A-Za-z0-9_.+=-]*$"
FileName = Annotated[str, Field(pattern=FILE_NAME, max_length=200)]
"""A name that can be a file's and leads nowhere else."""

Checkpoint = Literal["last", "best", "entropy", "snd"]
"""By which rule a checkpoint was chosen."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskInfo(Part):
    """What was adapted to what; see :class:`udabench.task.Task`."""

    name: FileName
    source: str
    target: str
    label_space: str
    classes: tuple[str, ...]
    evaluated: dict[str, tuple[int, ...]]

    @property
    def headline(self) -> str:
        """The metric that tables are sorted by."""
        return next(iter(self.evaluated))


class InitialWeights(Part):
    """What a loader said of initial weights."""

    source: str
    coverage: float
    matched: int
    missing: int
    unexpected: int
    digest: str = ""

    @classmethod
    def of(cls, report: WeightsReport) -> InitialWeights:
        """From the loader's report."""
        missing, unexpected = len(report.missing), len(report.unexpected)
        return cls(
            source=report.source,
            coverage=report.coverage,
            matched=report.matched,
            missing=missing,
            unexpected=unexpected,
            digest=report.digest,
        )


class NetworkInfo(Part):
    """The network: its name, the initial weights as configured and as found, and the number of parameters."""

    name: str
    weights: str
    parameters: int
    reports: tuple[InitialWeights, ...] = ()

    @classmethod
    def of(cls, name: str, weights: str, parameters: int, reports: Sequence[WeightsReport] = ()) -> NetworkInfo:
        """From what the configuration names and the built network reports."""
        found = tuple(InitialWeights.of(report) for report in reports)
        return cls(name=name, weights=weights, parameters=parameters, reports=found)


class Entropy(Part):
    """Mean entropy of correct and incorrect pixels, nats; see :class:`udabench.evaluate.entropy.EntropyResult`."""

    correct: Share
    incorrect: Share
    images_correct: int
    images_incorrect: int


class Score(Part):
    """One predictor at one checkpoint.

    Attributes:
        predictor: ``student`` or ``teacher``.
        checkpoint: ``last``, ``best``: selected on the evaluation set's own labels, or selected on its images alone:
            ``entropy`` and ``snd``, see :mod:`udabench.evaluate.selection`.
        iteration: of the checkpoint.
        iou: class name -> IoU over the whole set; NaN for a class without a pixel in truth and prediction.
        means: metric name -> mean IoU over the classes that it evaluates.
        unlabelled: what the rules without labels look at.
    """

    predictor: str
    checkpoint: Checkpoint
    iteration: int
    iou: dict[str, Share]
    means: dict[str, Share]
    entropy: Entropy | None = None
    unlabelled: dict[str, Share] = {}

    @property
    def key(self) -> str:
        """Its name in the file of matrices."""
        return f"{self.predictor}.{self.checkpoint}"

    @property
    def oracle_selection(self) -> bool:
        """Whether the evaluation set's labels chose the checkpoint."""
        return self.checkpoint == "best"

    @property
    def unlabelled_selection(self) -> bool:
        """Whether the evaluation set's images chose the checkpoint, without their labels."""
        return self.checkpoint in ("entropy", "snd")


class Cost(Part):
    """What it took. None: not measured.

    Attributes:
        iterations, images: training steps and training images of both domains.
        wall_seconds: the whole run, over all of its sessions.
        step_seconds: mean of a training step, waiting for data included.
        data_wait: share of the training time spent waiting for data.
        peak_memory: bytes on the device (CUDA) or of the process (CPU).
        evaluation_seconds: of the headline's evaluation.
    """

    iterations: int
    images: int
    wall_seconds: float
    step_seconds: float | None = None
    data_wait: float | None = None
    peak_memory: int | None = None
    evaluation_seconds: float | None = None


class PassValues(Part):
    """What a pass over a domain's training images measured.

    Attributes:
        stage: whose ``prepare`` it was.
        iteration: steps of the run before it.
        values: means over the images: of pseudo-labels the density and each class's share of the pixels, and what the
            referee found (``probe/...``), whose accuracy no method saw.
    """

    stage: str
    iteration: int
    values: dict[str, float]


class Revision(Part):
    """Of the checkout that the code ran from."""

    commit: str
    dirty: bool


class AncestorInfo(Part):
    """The run that a run began from.

    Attributes:
        run, method, config_hash, seed: which it was.
        outcome: its outcome's digest; None: imported weights, which no run has evaluated.
        weights: digest of the state that was taken over, or that its network's weights were read from.
        stages: of the same method, that were taken over; none: its network's weights were.
        iterations: steps of these stages, which are among those of the run.
        target_labels: whether it had trained on the target's labels.
    """

    run: str
    method: str
    config_hash: str
    seed: int
    outcome: Digest | None
    weights: Digest
    stages: tuple[str, ...] = ()
    iterations: int = 0
    target_labels: bool = False

    def described(self) -> str:
        """For people."""
        named = f"{self.method} {self.config_hash} seed {self.seed}"
        if not self.stages:
            return f"began with the network of {named}"
        return f"began where {named} had got to: {', '.join(self.stages)} ({self.iterations} steps) are taken over"


class Flags(Part):
    """What a reader of the numbers must know.

    Attributes:
        assumed: keys of values that no source states.
        target_labels: the method trained on the target's labels.
        translated_input: the method transforms images before it is evaluated on them.
        lossy_store: training images came from a prepared store that had changed their pixels (JPEG).
        oracle_selection: some score belongs to a checkpoint chosen on the evaluation set.
        unlabelled_selection: likewise, on its images without their labels.
        collapse: what the watchdog saw.
        limited: only so many images were evaluated.
        training_images: the images that were evaluated are those that were trained on.
        resumed: how often the run was taken up again.
        imported: the file that the weights come from, where nothing was trained here.
        ancestor: the run that it began from.
    """

    assumed: tuple[str, ...] = ()
    target_labels: bool = False
    translated_input: bool = False
    lossy_store: bool = False
    oracle_selection: bool = False
    unlabelled_selection: bool = False
    collapse: tuple[str, ...] = ()
    limited: int | None = None
    training_images: bool = False
    resumed: int = 0
    imported: str | None = None
    ancestor: AncestorInfo | None = None

    def described(self) -> list[str]:
        """Sentences for people, the gravest first."""
        said = []
        if self.imported is not None:
            said.append(f"weights imported from {self.imported}, not trained here")
        if self.target_labels:
            said.append("trained on the target's labels: an upper bound, not adaptation")
        if self.translated_input:
            said.append("evaluated on images that the method had transformed")
        if self.lossy_store:
            said.append("trained on images from a JPEG store, whose pixels are not the original ones")
        if self.limited is not None:
            said.append(f"evaluated on the first {self.limited} images only")
        if self.training_images:
            said.append("evaluated on the images that it was trained on")
        if self.oracle_selection:
            said.append("the best checkpoint was selected on the evaluation set's labels")
        if self.unlabelled_selection:
            said.append(
                "the checkpoints entropy and snd were selected on the evaluation images without labels (which domain "
                "generalisation in the strict sense does not have)"
            )
        if self.ancestor is not None:
            said.append(self.ancestor.described())
        said += [f"collapse: {text}" for text in self.collapse]
        if self.resumed:
            said.append(f"resumed {self.resumed} time{'s' if self.resumed > 1 else ''}")
        if self.assumed:
            said.append(f"values that no source states: {', '.join(self.assumed)}")
        return said


class Record(Part):
    """Everything that a leaderboard reads. The first score is the headline.

    Attributes:
        run: name of the run, ``<method>[-<preset>]-<network>-<hash8>-s<seed>``.
        config: dotted key -> value, without folders of this machine; origins: dotted key -> where it comes from.
        protocol: fields of :class:`udabench.task.Protocol`.
        evaluations_made: how often labels of the evaluation set were looked at, over the whole run.
        lists: ``source``, ``target`` -> digest of the list of training images, of the domains that were trained on.
        matrices: digest of the per-image confusion matrices that lie beside the record.
        passes: what passes over training images measured, in order (older records say nothing of them).
    """

    schema_version: Literal[1] = 1
    run: FileName
    task: TaskInfo
    method: str
    preset: str | None
    network: NetworkInfo
    config: dict[str, Any]
    origins: dict[str, str]
    config_hash: str
    protocol: dict[str, Any]
    protocol_hash: str
    seed: int
    evaluations: tuple[Score, ...] = Field(min_length=1)
    evaluations_made: int
    cost: Cost
    versions: dict[str, str]
    device: str
    revision: Revision | None
    flags: Flags
    lists: dict[str, Digest]
    matrices: Digest
    passes: tuple[PassValues, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if protocol_hash(self.protocol) != self.protocol_hash:
            raise ValueError("the protocol does not have the stored protocol_hash")
        keys = [score.key for score in self.evaluations]
        if len(set(keys)) < len(keys):
            raise ValueError("two evaluations of the same predictor and checkpoint")
        for score in self.evaluations:
            if tuple(score.iou) != self.task.classes or tuple(score.means) != tuple(self.task.evaluated):
                raise ValueError(f"classes or averages of {score.key} are not those of the task")
        return self

    @property
    def method_title(self) -> str:
        """The method's name; ``proda + sam`` where something is around it."""
        names, key = [self.method], "settings.inner"
        while isinstance(name := self.config.get(key), str):
            names.append(name)
            key = key.removesuffix("inner") + "inner_settings.inner"
        return method_title(names)

    @property
    def headline(self) -> Score:
        """The paper's choice of predictor at the last checkpoint."""
        return self.evaluations[0]

    def outcome(self) -> dict[str, Any]:
        """The deterministic part: equal for a run that was killed and resumed and for one that was not."""
        chosen = {
            "task", "method", "network", "config_hash", "protocol", "seed", "evaluations", "evaluations_made", "lists",
            "matrices",
        }  # fmt: skip
        values = self.model_dump(mode="json", include=chosen)
        values["flags"] = self.flags.model_dump(mode="json", exclude={"resumed"})
        values["cost"] = self.cost.model_dump(mode="json", include={"iterations", "images"})
        return values

    @property
    def outcome_digest(self) -> str:
        """SHA-256 of :meth:`outcome`."""
        return hashlib.sha256(json.dumps(self.outcome(), sort_keys=True).encode()).hexdigest()


def protocol_hash(protocol: dict[str, Any]) -> str:
    """As :attr:`udabench.task.Protocol.hash`, from the stored fields."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]
