"""Patch mining (CBST): where an image shows a class that is rare among the pseudo-labels, crops are drawn around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from udabench.errors import PluginError


@dataclass(frozen=True)
class Mined:
    """What is mined in one version of a stage; see :class:`udabench.method.Mining`.

    Attributes:
        layer: name of the layer with the class ids.
        classes: ids.
        chance: of each crop.
    """

    layer: str
    classes: tuple[int, ...]
    chance: float

    def find(self, labels: Tensor, rng: np.random.Generator) -> tuple[int, int] | None:
        """Row and column of the pixel to draw a crop around: of one of the classes shown, by lot; None: as always.

        Raises:
            PluginError: the labels are not H W.
        """
        if labels.dim() != 2 or labels.is_floating_point():
            raise PluginError(f"The layer '{self.layer}' is mined for classes, but does not hold class ids H W.")
        if rng.random() >= self.chance:
            return None
        ids = labels.numpy()
        shown = [c for c in self.classes if (ids == c).any()]
        if not shown:
            return None
        places = np.flatnonzero(ids == shown[int(rng.integers(len(shown)))])
        row, column = divmod(int(places[int(rng.integers(len(places)))]), ids.shape[1])
        return row, column
