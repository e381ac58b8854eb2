"""Scores a predictor on a labelled split."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from udabench.config import EvaluateConfig
from udabench.data.batches import samples_to_device
from udabench.data.files import check_same_size, open_image, open_label
from udabench.data.parallel import Progress
from udabench.data.resize import resize_image
from udabench.data.whole import whole_images
from udabench.dataset import Dataset, Pixels
from udabench.evaluate.confusion import confusion_matrix
from udabench.evaluate.entropy import EntropyProbe, EntropyResult, joined
from udabench.evaluate.inference import Predictor, infer
from udabench.evaluate.metrics import Matrix, Values, iou, mean_ious
from udabench.evaluate.prediction import predict_entropy, predict_labels
from udabench.evaluate.selection import RULES, Rule, criteria
from udabench.labels import IGNORE, LabelSpace
from udabench.method import Samples
from udabench.size import Size
from udabench.task import Protocol, Task, protocol_of
from udabench.world import gather_values, rank, world_size

Precision = Literal["float32", "bfloat16", "float16"]
READERS = 2
"""Threads that decode ahead of the network; twice as many images wait at most."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        names: images, in the data set's order.
        matrices: n C C int64, one confusion matrix an image.
        iou: C, over the whole set; NaN for an empty union.
        means: metric name -> mean over the classes it evaluates; the first is the headline.
        seconds: wall time.
        unlabelled: rule of selection without labels -> what it looks at, the mean over the images.
        entropy: what the probe found, if it was asked for.
        protocol: what the numbers may be compared under.
    """

    names: tuple[str, ...]
    matrices: Matrix
    iou: Values
    means: dict[str, float]
    seconds: float
    entropy: EntropyResult | None
    protocol: Protocol
    unlabelled: Mapping[Rule, float] = field(default_factory=dict)

    @property
    def headline(self) -> float:
        """The first mean."""
        return next(iter(self.means.values()))


@dataclass(frozen=True)
class _Case:
    """One image as read: resized, and its label in the task's classes at the label's own size."""

    name: str
    image: Pixels
    label: Pixels


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    task: Task,
    config: EvaluateConfig,
    usual_size: Size,
    device: torch.device,
    *,
    look: Callable[[Samples], Samples] = lambda samples: samples,
    progress: Progress | None = None,
    probe: Literal["entropy"] | None = None,
    precision: Precision = "float32",
    present: Sequence[int] | None = None,
) -> Evaluation:
    """Score ``predictor`` on a labelled split. Several processes share the images; each gets the whole result.

    Networks are left in the mode that the caller put them in, and no random number is drawn.

    Args:
        dataset: the split; its labels are mapped to ``task.classes``.
        usual_size: input size, where ``config.size`` names no other.
        look: the method's test-time transform, called once on the whole images; see ``Method.look``.
        progress: told ``(done, total)`` images.
        probe: what is measured besides.
        precision: autocast type of the network; everything after it is float32.
        present: classes that the source has, for ``config.restrict_to_source``; see :func:`present_classes`.

    Raises:
        DataError: a file is missing or broken, or a label's size is not its image's.
    """
    started = time.perf_counter()
    if config.restrict_to_source and present is None:
        raise ValueError("restrict_to_source needs the classes that are present in the source")
    chosen = limited(dataset, config.limit)
    referee = _Referee(config, len(task.classes), present if config.restrict_to_source else None, probe)
    size = config.size or usual_size
    total, together = len(chosen), world_size()
    # Images that go through the network together do so with any number of processes: the results are the same.
    lots = [chosen.names[first : first + config.batch] for first in range(0, total, config.batch)]
    with torch.inference_mode():
        for cases in _batches(chosen, lots[rank() :: together], task.classes, size, config.batch):
            samples = samples_to_device(_samples(cases), device)
            with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
                logits = infer(predictor, look(samples), config)
            for index, case in enumerate(cases):
                referee.judge(logits[:, index : index + 1], case.label)
                if progress is not None:
                    progress(min(len(referee.matrices) * together, total), total)
    parts = [iter(part) for part in gather_values(referee.matrices)]
    matrices = np.stack([next(parts[number % together]) for number, lot in enumerate(lots) for _ in lot])
    unlabelled = [values for part in gather_values(referee.unlabelled) for values in part]
    values = iou(matrices.sum(0))
    return Evaluation(
        names=chosen.names,
        matrices=matrices,
        iou=values,
        means=mean_ious(values, task.evaluated),
        seconds=time.perf_counter() - started,
        entropy=None if referee.entropy is None else joined(gather_values(referee.entropy)).result(),
        protocol=protocol_of(task, chosen, config),
        unlabelled={rule: math.fsum(of[rule] for of in unlabelled) / total for rule in RULES},
    )


class _Referee:
    """Turns logits into one image's confusion matrix."""

    def __init__(
        self, config: EvaluateConfig, classes: int, allowed: Sequence[int] | None, probe: Literal["entropy"] | None
    ) -> None:
        self.align_corners = config.align_corners
        self.classes = classes
        self.allowed = allowed
        self.entropy = EntropyProbe() if probe == "entropy" else None
        self.matrices: list[Matrix] = []
        self.unlabelled: list[Mapping[Rule, float]] = []

    def judge(self, logits: Tensor, label: Pixels) -> None:
        """``logits`` V 1 C h w of one image, its label H W."""
        if logits.shape[2] != self.classes:
            raise ValueError(f"the predictor gave {logits.shape[2]} classes; the task has {self.classes}")
        self.unlabelled.append(criteria(logits[:, 0]))
        truth = torch.from_numpy(label).to(logits.device)
        size = Size(*label.shape)
        prediction = predict_labels(logits, size, self.align_corners, self.allowed)[0]
        self.matrices.append(confusion_matrix(truth, prediction, self.classes).cpu().numpy())
        if self.entropy is not None:
            self.entropy.add(predict_entropy(logits, size, self.align_corners)[0], prediction, truth)


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """A view of the first ``limit`` samples: a list of its own, hence a protocol of its own."""
    if limit is None or limit >= len(dataset):
        return dataset
    view = copy.copy(dataset)
    view.__dict__["names"] = dataset.names[:limit]
    return view


def present_classes(source: type[Dataset], classes: LabelSpace) -> tuple[int, ...]:
    """Ids of ``classes`` that occur in a source data set."""
    lookup = classes.lookup(source.label_space)
    native = source.present if source.present is not None else range(len(source.label_space))
    return tuple(sorted({int(lookup[i]) for i in native} - {IGNORE}))


def _batches(
    dataset: Dataset, lots: Sequence[Sequence[str]], classes: LabelSpace, size: Size, batch: int
) -> Iterator[list[_Case]]:
    """The named images, ``batch`` together (the last lot may be smaller), decoded ahead."""
    lookup = classes.lookup(dataset.label_space)

    def read(name: str) -> _Case:
        image, label = open_image(dataset, name), open_label(dataset, name)
        check_same_size(image, label, name, dataset.label_path(name))
        return _Case(name, resize_image(image, size), lookup[label])

    waiting: list[_Case] = []
    for case in ahead(read, [name for lot in lots for name in lot]):
        waiting.append(case)
        if len(waiting) == batch:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Sequence[Item], threads: int = READERS) -> Iterator[Result]:
    """``map`` in threads, in order, at most ``2 * threads`` results ahead of who reads them."""
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _samples(cases: Sequence[_Case]) -> Samples:
    images = torch.from_numpy(np.stack([case.image for case in cases])).permute(0, 3, 1, 2).contiguous()
    return whole_images(images, tuple(case.name for case in cases))
