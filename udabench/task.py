"""A task: from which data to which, the classes that are put out, and the rows that are averaged. And its protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from udabench.config import EvaluateConfig
from udabench.dataset import Dataset
from udabench.errors import UsageError
from udabench.labels import BUILT_IN, IGNORE, LabelSpace


@dataclass(frozen=True)
class Task:
    """What is adapted to what. The C of an equation is ``len(task.classes)``.

    Attributes:
        source, target: names of the data sets.
        classes: the outputs, fixed before training; labels of both sides are mapped to it, many to one.
        evaluated: metric name -> class ids that it averages; the first is the headline.
    """

    source: str
    target: str
    classes: LabelSpace
    evaluated: Mapping[str, tuple[int, ...]]

    @property
    def headline(self) -> str:
        """The metric that a table is sorted by."""
        return next(iter(self.evaluated))

    @property
    def name(self) -> str:
        """A folder's name: ``gta5-cityscapes``, with the classes where they are not the target's usual ones."""
        return f"{self.source}-{self.target}"


def choose_task(
    source: str, target: str, source_set: type[Dataset], target_set: type[Dataset], classes: str | None = None
) -> Task:
    """The task of a pair of data sets.

    Without ``classes`` the outputs are the target's classes if the source's map onto them, else the source's if the
    target's map onto those. Raises UsageError when the label spaces cannot be mapped.
    """
    spaces = {
        **BUILT_IN,
        target_set.label_space.name: target_set.label_space,
        source_set.label_space.name: source_set.label_space,
    }
    given = (source_set.label_space, target_set.label_space)
    if classes is not None:
        if classes not in spaces:
            raise UsageError(f"Unknown class list '{classes}'. Known: {', '.join(sorted(spaces))}.")
        candidates = [spaces[classes]]
    else:
        candidates = [target_set.label_space, source_set.label_space]
    for space in candidates:
        if all(space.can_read(other) for other in given):
            return Task(source, target, space, _evaluated(space, source_set))
    raise UsageError(
        f"Labels of '{source}' ({source_set.label_space.name}) and of '{target}' ({target_set.label_space.name}) "
        f"do not both map onto {' or '.join(f'{space.name!r}' for space in candidates)}. Choose another pair."
    )


def _evaluated(space: LabelSpace, source_set: type[Dataset]) -> dict[str, tuple[int, ...]]:
    """The averages over classes that the source has at all (SYNTHIA: 16 and 13*, never 19)."""
    lookup = space.lookup(source_set.label_space)
    native = source_set.present if source_set.present is not None else range(len(source_set.label_space))
    present = {int(lookup[i]) for i in native} - {IGNORE}
    whole = {name: ids for name, ids in space.averages.items() if set(ids) <= present}
    return whole or {f"mIoU{len(present)}": tuple(sorted(present))}


@dataclass(frozen=True)
class Protocol:
    """What defines the metric, and nothing else. Rows with different hashes never share a table.

    Attributes:
        dataset, split, list_digest, images: the evaluation set.
        label_size: ``native`` (each label at its file's size).
        classes: names of the outputs that are scored.
        rule: classes that are missing from the source: ``A`` scores all outputs and averages a subset of rows;
            ``B`` has fewer outputs and turns other labels into ignore (the label map does that).
        ignore: what happens to unknown pixels.
        logits: how logits meet the label's size.
    """

    dataset: str
    split: str
    list_digest: str
    images: int
    classes: tuple[str, ...]
    rule: str
    align_corners: bool = False
    label_size: str = "native"
    ignore: str = "pixels labelled 255 are dropped from both maps"
    logits: str = "bilinear to the label's size before argmax"

    @property
    def hash(self) -> str:
        """12 hex digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def protocol_of(task: Task, dataset: Dataset, config: EvaluateConfig) -> Protocol:
    """The protocol under which ``dataset`` (a labelled split of ``config.domain``) scores this task."""
    whole = len(dataset.label_space)
    return Protocol(
        dataset=task.source if config.domain == "source" else task.target,
        split=dataset.split,
        list_digest=dataset.digest(),
        images=len(dataset),
        classes=task.classes.names,
        rule="A" if len(task.classes) == whole else "B",
        align_corners=config.align_corners,
    )
