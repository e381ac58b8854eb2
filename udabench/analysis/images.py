"""The images that a run is looked at on: whole, at the size of its evaluation or training, with their labels."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from udabench.analysis.base import Place
from udabench.data.build import check_labels, training_size
from udabench.data.doctor import spread
from udabench.data.files import check_same_size, open_image, open_label
from udabench.data.locate import open_dataset
from udabench.data.resize import resize_image, resize_label
from udabench.data.whole import whole_images
from udabench.dataset import Dataset, Pixels
from udabench.evaluate.evaluator import ahead
from udabench.labels import LabelSpace
from udabench.method import Samples
from udabench.run.plan import Plan
from udabench.size import Size

TRAINING_LIMIT = 500
"""Images of a training split that are looked at, where nothing else is said."""


class Case(NamedTuple):
    """One image: the network's input, N = 1, uint8; the label H W uint8 in the task's classes, or None."""

    samples: Samples
    label: Tensor | None


@dataclass(frozen=True)
class Images:
    """A split, or evenly spread images of it.

    Attributes:
        size: of the network's input.
        small: whether labels are brought to that size too (as self-training sees them), or stay as they are.
    """

    place: Place
    name: str
    dataset: Dataset
    size: Size
    classes: LabelSpace
    small: bool = False

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self) -> Iterator[Case]:
        """All of them in order, decoded ahead. Raises DataError that names the file."""
        return ahead(self._case, self.dataset.names)

    def _case(self, name: str) -> Case:
        image = open_image(self.dataset, name)
        pixels = torch.from_numpy(resize_image(image, self.size).copy()).permute(2, 0, 1)[None].contiguous()
        label = self._label(name, image) if self.dataset.has_label(name) else None
        return Case(whole_images(pixels, (name,)), label)

    def _label(self, name: str, image: Pixels) -> Tensor:
        label = open_label(self.dataset, name)
        check_same_size(image, label, name, self.dataset.label_path(name))
        mapped = self.classes.lookup(self.dataset.label_space)[label]
        return torch.from_numpy(resize_label(mapped, self.size).copy() if self.small else mapped)

    def described(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "data set": self.name,
            "split": self.dataset.split,
            "images": len(self),
            "digest of the list": self.dataset.digest(),
            "input size": str(self.size),
        }


def open_images(plan: Plan, place: Place, split: str | None = None, limit: int | None = None) -> Images:
    """Images of a run's task.

    Args:
        split: of ``target``; None: the one that the run evaluates.
        limit: at most so many, evenly spread; None: all of ``target``, :data:`TRAINING_LIMIT` of the others.

    Raises:
        UsageError: no such split, or the data set's folder is not known.
        DataError: files or labels are missing.
    """
    config = plan.config
    data, evaluation = config.data, config.evaluate
    own = split or (evaluation.split if evaluation.domain == "target" else "val")
    name, part, options = {
        "target": (config.target, own, data.target_options),
        "source": (config.source, data.source_split, data.source_options),
        "adapted": (config.target, data.target_split, data.target_options),
    }[place]
    whole = open_dataset(plan.registry, name, part, data.roots, options)
    dataset = some(whole, limit or (None if place == "target" else TRAINING_LIMIT))
    size = training_size(dataset, "source" if place == "source" else "target", data)
    if place == "target" and evaluation.domain == "target":
        size = evaluation.size or size
    if place != "adapted":
        check_labels(dataset)
    return Images(place, name, dataset, size, plan.task.classes, small=place == "adapted")


def some(dataset: Dataset, limit: int | None) -> Dataset:
    """A view of ``limit`` samples, evenly spread over the split."""
    names = dataset.names
    if limit is None or limit >= len(names):
        return dataset
    view = copy.copy(dataset)
    view.__dict__["names"] = tuple(names[index] for index in spread(len(names), limit))
    return view
