"""Pixels of both domains as points in a plane: t-SNE (van der Maaten and Hinton, JMLR 2008) by scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Generator, Tensor

from udabench.analysis.base import Analysis, Place, Seen, Subject
from udabench.analysis.figures import Tables, class_colors, panels
from udabench.config import Section, setting
from udabench.labels import LabelSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS = 50
"""Wider features are first brought down to this by PCA, as scikit-learn advises."""
MARKERS: Mapping[str, str] = {"source": "o", "target": "x"}


class TSNEConfig(Section):
    per_class: int = setting(60, "pixels of each class and domain", unit="pixels", ge=1, le=5000)
    perplexity: float = setting(30.0, "about how many neighbours a point has", origin="scikit-learn", gt=0)
    seed: int = setting(0, "of the sample and of the embedding", ge=0, lt=2**31)


class Reservoir:
    """A uniform sample of at most ``size`` pixels of each class, whatever passes by.

    Each pixel draws a number; those with the smallest are kept.
    """

    def __init__(self, classes: int, size: int, rng: Generator) -> None:
        self.size = size
        self.rng = rng
        self.kept: list[tuple[Tensor, Tensor] | None] = [None] * classes

    def add(self, features: Tensor, grid: Tensor) -> None:
        """An image: D h w and h w int64, 255 dropped."""
        flat, label = features.flatten(1), grid.flatten().cpu()
        drawn = torch.rand(len(label), generator=self.rng, dtype=torch.float64)
        for c, kept in enumerate(self.kept):
            place = (label == c).nonzero().flatten()
            if not len(place):
                continue
            first = drawn[place].argsort()[: self.size]
            chosen = place[first].to(flat.device)
            keys, rows = drawn[place[first]], flat[:, chosen].T.float().cpu()
            if kept is not None:
                keys, rows = torch.cat([kept[0], keys]), torch.cat([kept[1], rows])
            best = keys.argsort()[: self.size]
            self.kept[c] = keys[best], rows[best]

    def rows(self) -> tuple[Tensor, Tensor]:
        """Features n D, and their classes n int64."""
        found = [(rows, torch.full((len(rows),), c)) for c, kept in enumerate(self.kept) if kept for rows in kept[1:]]
        if not found:
            return torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
        features, labels = zip(*found, strict=True)
        return torch.cat(features), torch.cat(labels)


class TSNE(Analysis):
    """As many pixels of each class of each domain, embedded together."""

    Config = TSNEConfig
    config: TSNEConfig
    rounds: ClassVar[tuple[tuple[Place, ...], ...]] = (("source", "target"),)
    needs: ClassVar[Mapping[str, str]] = {"sklearn": "pip install 'udabench[analysis]' (scikit-learn)"}

    def __init__(self, config: TSNEConfig, subject: Subject) -> None:
        super().__init__(config, subject)
        self.divergence: float | None = None
        self.samples = {
            place: Reservoir(self.classes, config.per_class, torch.Generator().manual_seed(2 * config.seed + index))
            for index, place in enumerate(MARKERS)
        }

    def look(self, seen: Seen, turn: int) -> None:
        self.samples[seen.place].add(seen.features, seen.grid)

    def table(self) -> pd.DataFrame:
        drawn = {place: sample.rows() for place, sample in self.samples.items()}
        features = [rows.numpy() for rows, _ in drawn.values() if len(rows)]
        points = self._embed(np.concatenate(features)) if features else np.zeros((0, 2))
        names = self.subject.classes.names
        return pd.DataFrame(
            {
                "domain": [place for place, (rows, _) in drawn.items() for _ in rows],
                "class": [names[int(c)] for _, labels in drawn.values() for c in labels],
                "x": points[:, 0],
                "y": points[:, 1],
            }
        )

    def _embed(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        from sklearn import decomposition, manifold

        count, width = features.shape
        if count < 4:
            return np.zeros((count, 2))
        if width > COMPONENTS < count:
            pca = decomposition.PCA(COMPONENTS, random_state=self.config.seed)
            features = pca.fit_transform(features)
        # As many neighbours as that must exist.
        perplexity = min(self.config.perplexity, (count - 1) / 3)
        model = manifold.TSNE(perplexity=perplexity, init="pca", random_state=self.config.seed)
        points: npt.NDArray[np.float64] = model.fit_transform(features)
        self.divergence = float(model.kl_divergence_)
        return points

    def notes(self) -> Mapping[str, Any]:
        return {} if self.divergence is None else {"divergence (KL) of the embedding": self.divergence}

    @classmethod
    def draw(cls, tables: Tables, classes: LabelSpace) -> Figure:
        figure, axes = panels(len(tables), width=5.4, height=5.4)
        colors = dict(zip(classes.names, class_colors(classes), strict=True))
        for axis, (run, table) in zip(axes, tables.items(), strict=True):
            for place, marker in MARKERS.items():
                here = table[table["domain"] == place]
                shade = [colors[name] for name in here["class"]]
                axis.scatter(here["x"], here["y"], s=14, c=shade, marker=marker, linewidths=0.8, alpha=0.75)
            axis.set_title(run, fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
        present = set().union(*(set(table["class"]) for table in tables.values()))
        _legend(figure, classes, present, columns=4 * min(len(tables), 2))
        return figure

    @classmethod
    def summary(cls, tables: Tables) -> pd.DataFrame:
        return pd.DataFrame({run: table["domain"].value_counts() for run, table in tables.items()})


def _legend(figure: Figure, classes: LabelSpace, present: set[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    def entry(name: str, color: object, marker: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=color, label=name)  # type: ignore[arg-type]

    shown = [(n, c) for n, c in zip(classes.names, class_colors(classes), strict=True) if n in present]
    handles = [entry(place, "black", marker) for place, marker in MARKERS.items()]
    handles += [entry(name, color, "s") for name, color in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
