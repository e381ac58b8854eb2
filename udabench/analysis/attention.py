"""What single pixels are similar to: maps of the logits' cosine, and of the attention of SAM's module.

Chung et al., inter-pixel correlation ("SAM"), Fig. 3 and E.4: the pixel of a class that is most sure of it, and the
positive part of its cosine to all others; beside it its row of A', where the run has a self-attention module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.analysis.base import Analysis, Seen, Subject
from udabench.analysis.figures import Tables, new_figure
from udabench.config import Section, setting
from udabench.errors import unknown
from udabench.labels import IGNORE, LabelSpace
from udabench.parts.attention import SelfAttention, similarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.float32]
MAPS = "maps"
"""Where a table carries what only the picture needs."""
WIDEST = 640
"""Pixels of a picture's width."""


class AttentionMapsConfig(Section):
    images: int = setting(2, "pictures, the first of the split", unit="images", ge=1, le=20)
    classes: tuple[str, ...] | None = setting(
        None,
        "classes of which the surest pixel is taken, such as [car, pole]; none: the most frequent of each picture",
    )
    per_image: int = setting(3, "classes of each picture, where none are named", ge=1, le=20)
    pixels: tuple[tuple[int, int], ...] = setting(
        (), "rows and columns of the network's input, such as [[100, 200]], in the place of classes", unit="pixels"
    )


@dataclass(frozen=True, eq=False)
class Map:
    """What is drawn of one pixel: h w each but the picture, H W 3 in [0, 1].

    Attributes:
        title: of its row of pictures.
        place: down and across, in 0..1 of the picture.
        same: where the truth is the class.
        logits: positive part of the cosine of logits.
        attention: row of A'; None without a module.
    """

    title: str
    picture: Pixels
    place: tuple[float, float]
    same: Pixels
    logits: Pixels
    attention: Pixels | None


class AttentionMaps(Analysis):
    """Of single pixels: the share of their similarity, and of their attention, that falls on their class."""

    Config = AttentionMapsConfig
    config: AttentionMapsConfig
    columns: ClassVar[tuple[str, ...]] = ("cells", "logits", "attention")

    def __init__(self, config: AttentionMapsConfig, subject: Subject) -> None:
        super().__init__(config, subject)
        for name in config.classes or ():
            if name not in subject.classes.names:
                raise unknown("class", name, subject.classes.names)
        self.modules = [module for module in subject.method.modules() if isinstance(module, SelfAttention)]
        self.rows: list[dict[str, Any]] = []
        self.maps: list[Map] = []
        self.seen = 0

    def look(self, seen: Seen, turn: int) -> None:
        self.seen += 1
        if self.seen > self.config.images:
            return
        scores = seen.logits if seen.scores is None else seen.scores
        probability = scores[0].softmax(0)
        truth = _on_grid(seen.truth, probability) if seen.truth is not None else probability.argmax(0)
        for title, own, place in self._places(seen, probability, truth):
            self._add(seen, scores, truth, title, own, place)

    def _places(self, seen: Seen, probability: Tensor, truth: Tensor) -> Iterator[tuple[str, int, tuple[int, int]]]:
        """A title, the class that is looked for (255: not known), a position of the grid (row, column)."""
        height, width = probability.shape[-2:]
        if not self.config.pixels:
            for index in self._classes(truth):
                place = divmod(_surest(probability[index], truth == index), width)
                yield self.subject.classes.names[index], index, place
        tall, wide = seen.samples.image.shape[-2:]
        for row, column in self.config.pixels:
            place = min(row, tall - 1) * height // tall, min(column, wide - 1) * width // wide
            yield f"pixel {row}, {column}", int(truth[place]), place

    def _classes(self, truth: Tensor) -> list[int]:
        names = self.subject.classes.names
        if self.config.classes is not None:
            return [names.index(name) for name in self.config.classes]
        counts = torch.bincount(truth[truth != IGNORE], minlength=self.classes)
        return [int(index) for index in counts.argsort(descending=True, stable=True)[: self.config.per_image]
                if counts[index] > 0]  # fmt: skip

    def _add(self, seen: Seen, scores: Tensor, truth: Tensor, title: str, own: int, place: tuple[int, int]) -> None:
        same = (truth == own) & (truth != IGNORE)
        cosine, attention = similarity(scores, place)[0], self._attention(seen, scores, place)
        weights = zip(self.columns, (torch.ones_like(cosine), cosine, attention), strict=True)
        shares = {key: nan if each is None or own == IGNORE else _share(each, same) for key, each in weights}
        image = seen.samples.names[0]
        name = self.subject.classes.names[own] if own != IGNORE else ""
        self.rows.append({"image": image, "class": name, "row": place[0], "column": place[1], **shares})
        down, across = ((part + 0.5) / length for part, length in zip(place, truth.shape, strict=True))
        drawn = (_plain(same), _plain(cosine), None if attention is None else _plain(attention))
        self.maps.append(Map(f"{image}\n{title}", _picture(seen.samples.image), (down, across), *drawn))

    def _attention(self, seen: Seen, scores: Tensor, place: tuple[int, int]) -> Tensor | None:
        """Of the module on the logits; where there is none, of that on the features, on the logits' grid."""
        for module in self.modules:
            if module.channels == scores.shape[1]:
                return module.row(scores, place)[0]
        for module in self.modules:
            if module.channels == seen.features.shape[0]:
                features = seen.features[None]
                if features.shape[-2:] != scores.shape[-2:]:
                    features = interpolate(features, scores.shape[-2:], mode="bilinear")
                return module.row(features, place)[0]
        return None

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows, columns=["image", "class", "row", "column", *self.columns])
        table.attrs[MAPS] = self.maps
        return table

    def notes(self) -> Mapping[str, Any]:
        return {
            "self-attention modules": len(self.modules),
            "row, column": "of the grid of the logits before upsampling",
            "cells, logits, attention": "share of the grid, of the pixel's similarity, of its attention that lies "
            "where the truth is the class",
        }

    @classmethod
    def remarks(cls, tables: Tables) -> Sequence[str]:
        return [
            f"{run} has no self-attention module: the similarity of its logits alone."
            for run, table in tables.items()
            if not any(each.attention is not None for each in table.attrs[MAPS])
        ]

    @classmethod
    def summary(cls, tables: Tables) -> pd.DataFrame:
        return pd.DataFrame({run: table[list(cls.columns)].mean() for run, table in tables.items()})

    @classmethod
    def draw(cls, tables: Tables, classes: LabelSpace) -> Figure:
        maps = {run: table.attrs[MAPS] for run, table in tables.items()}
        panels = [(run, what) for run, found in maps.items() for what in _panels(found)]
        count = max(len(found) for found in maps.values())
        figure = new_figure(3.2 * (1 + len(panels)), 0.5 + 2.0 * max(1, count))
        axes = figure.subplots(max(1, count), 1 + len(panels), squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for index in range(count):
            first = next(found[index] for found in maps.values() if index < len(found))
            _show(axes[index, 0], first, first.same, first.title)
            for axis, (run, what) in zip(axes[index, 1:], panels, strict=True):
                if index < len(maps[run]):
                    found = maps[run][index]
                    title = f"{run}\n{TITLES[what]}" if index == 0 else ""
                    _show(axis, found, getattr(found, what), title, dot=True)
        return figure


TITLES: Mapping[str, str] = {"logits": "cosine of the logits", "attention": "attention, a row of A'"}


def _panels(maps: Sequence[Map]) -> list[str]:
    return ["logits", "attention"] if any(each.attention is not None for each in maps) else ["logits"]


def _show(axis: Axes, shown: Map, values: Pixels | None, title: str, dot: bool = False) -> None:
    """A map over the picture, red where it is highest; without a dot it is the truth."""
    height, width = shown.picture.shape[:2]
    axis.imshow(shown.picture)
    if values is not None:
        axis.imshow(
            values, cmap="turbo" if dot else "gray", vmin=0, vmax=float(values.max()) or 1, alpha=0.6,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear" if dot else "nearest",
        )  # fmt: skip
    if dot:
        down, across = shown.place
        axis.plot(across * width, down * height, "o", color="white", markeredgecolor="black", markersize=6)
    axis.set_title(title, fontsize=9)


def _on_grid(truth: Tensor, like: Tensor) -> Tensor:
    return interpolate(truth[None, None].float(), like.shape[-2:], mode="nearest")[0, 0].long()


def _surest(probability: Tensor, where: Tensor) -> int:
    """The flat position of the highest value, among the class's own cells where the image shows it."""
    return int((probability.where(where, -1) if where.any() else probability).argmax())


def _share(values: Tensor, where: Tensor) -> float:
    return float(values[where].sum() / values.sum())


def _plain(values: Tensor) -> Pixels:
    array: Pixels = values.float().cpu().numpy()
    return array


def _picture(image: Tensor) -> Pixels:
    """1 3 H W -> H W 3, no wider than what is drawn."""
    if image.shape[-1] > WIDEST:
        image = interpolate(image, scale_factor=WIDEST / image.shape[-1], mode="area")
    return _plain(image[0].permute(1, 2, 0).clamp(0, 1))
