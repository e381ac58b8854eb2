"""Which sample stands at which position of a stream: uniform, rare class sampling, paired, weighted, from a share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from udabench.data.randomness import permute, seed_of
from udabench.errors import DataError

Counts = npt.NDArray[np.int64]
"""Images x classes: labelled pixels of each class in each image."""


class Draw(NamedTuple):
    """A sample's place in the list, and the class for whose sake it was drawn."""

    item: int
    wanted: int | None = None


class Sampler(Protocol):
    """A pure function of the position in the stream and of the sample's own random numbers."""

    def draw(self, position: int, rng: np.random.Generator) -> Draw: ...


@dataclass(frozen=True)
class Uniform:
    """Every sample once an epoch, each epoch in an order of its own.

    Attributes:
        length: number of samples.
        key: tells streams apart.
    """

    length: int
    key: int

    def draw(self, position: int, rng: np.random.Generator) -> Draw:
        epoch, place = divmod(position, self.length)
        return Draw(permute(place, self.length, seed_of(self.key, epoch)))


@dataclass(frozen=True)
class Paired:
    """Every pair of a source and a target sample once an epoch of ``sources * targets`` (DAFormer code).

    Both domains hold one with the same ``key``; pair ``i`` is source ``i // targets`` and target ``i % targets``.
    """

    sources: int
    targets: int
    key: int
    target: bool

    def draw(self, position: int, rng: np.random.Generator) -> Draw:
        whole = self.sources * self.targets
        epoch, place = divmod(position, whole)
        source, target = divmod(permute(place, whole, seed_of(self.key, epoch)), self.targets)
        return Draw(target if self.target else source)


@dataclass(frozen=True)
class RareClass:
    """Rare class sampling (DAFormer, Eq 8 and 9): a class first, then an image that shows enough of it.

    Attributes:
        classes: ids that can be drawn.
        chances: their probabilities.
        images: for each of them, the indices of the images with enough pixels.
    """

    classes: tuple[int, ...]
    chances: npt.NDArray[np.float64]
    images: Sequence[npt.NDArray[np.int64]]

    def draw(self, position: int, rng: np.random.Generator) -> Draw:
        choice = int(rng.choice(len(self.classes), p=self.chances))
        item = int(self.images[choice][rng.integers(len(self.images[choice]))])
        return Draw(item, self.classes[choice])


@dataclass(frozen=True)
class Weighted:
    """Images by weight, with replacement.

    Attributes:
        cumulated: sums of the chances up to each image; the last is 1.
    """

    cumulated: npt.NDArray[np.float64]

    def draw(self, position: int, rng: np.random.Generator) -> Draw:
        return Draw(int(np.searchsorted(self.cumulated, rng.random(), side="right")))


@dataclass(frozen=True)
class Share:
    """A random part of the samples, each of it once an epoch (CBST's source portion).

    Attributes:
        length: number of all samples.
        inner: over those of the part.
        key: which part.
    """

    length: int
    inner: Uniform
    key: int

    def draw(self, position: int, rng: np.random.Generator) -> Draw:
        return Draw(permute(self.inner.draw(position, rng).item, self.length, self.key))


def image_chances(counts: Counts) -> npt.NDArray[np.float64]:
    """Weights of images by the classes that they show, summed over these: ``1 / images that show it``; normalised.

    So each class has the same say: it is as if a class were drawn first, all alike, then one of its images. BiCL
    prefers source images with rare classes; its rule is in a supplement that is not public, so this one is assumed.
    """
    shown = counts > 0
    weights = (shown / np.maximum(shown.sum(axis=0), 1)).sum(axis=1)
    chances: npt.NDArray[np.float64] = weights / weights.sum()
    return chances


def weighted_sampler(counts: Counts, names: Sequence[str]) -> Weighted:
    """The sampler for these statistics. Raises DataError: no labelled pixel at all."""
    _check_counts(counts, names, "Weighted sampling")
    cumulated = image_chances(counts).cumsum()
    return Weighted(cumulated / cumulated[-1])


def class_chances(counts: Counts, temperature: float) -> npt.NDArray[np.float64]:
    """P(c) = softmax((1 - f_c) / T) over the classes that occur; 0 for the others (DAFormer, Eq 9).

    Args:
        counts: images x classes.
        temperature: T.
    """
    pixels = counts.sum(axis=0).astype(np.float64)
    present = pixels > 0
    score = (1 - pixels / pixels.sum()) / temperature
    weight = np.where(present, np.exp(score - score[present].max()), 0.0)
    chances: npt.NDArray[np.float64] = weight / weight.sum()
    return chances


def rare_class_sampler(counts: Counts, temperature: float, min_pixels: int, names: Sequence[str]) -> RareClass:
    """The sampler for these statistics.

    A class that occurs, but in no image with more than ``min_pixels`` pixels, is drawn from the images that have any.

    Raises:
        DataError: no labelled pixel at all: such statistics would fail, or silently not sample, in the training.
    """
    _check_counts(counts, names, "Rare class sampling")
    chances = class_chances(counts, temperature)
    classes = tuple(int(c) for c in np.flatnonzero(counts.sum(axis=0)))
    images = []
    for c in classes:
        enough = np.flatnonzero(counts[:, c] > min_pixels)
        images.append(enough if len(enough) else np.flatnonzero(counts[:, c]))
    return RareClass(classes, chances[list(classes)], images)


def _check_counts(counts: Counts, names: Sequence[str], what: str) -> None:
    if counts.size == 0 or counts.sum() == 0:
        raise DataError(
            f"The class statistics of {len(names)} images are empty: no pixel has a class. {what} cannot work. Check "
            "the labels with 'udabench data doctor'."
        )
