"""The referee's way to the target's training labels. Nothing that is handed to a method leads here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from udabench.data.crop import Window
from udabench.data.cutter import Cutter
from udabench.data.resize import resize_label
from udabench.dataset import Dataset
from udabench.errors import DataError
from udabench.labels import IGNORE, LabelSpace
from udabench.method import Samples
from udabench.size import Size


class Truth:
    """Labels of the target's training images, resized, cut and mirrored as the samples were. Opened when asked.

    Args:
        dataset: the target's training split.
        classes: the task's outputs.
    """

    def __init__(self, dataset: Dataset, classes: LabelSpace) -> None:
        self._dataset = dataset
        self._lookup = classes.lookup(dataset.label_space)

    def __call__(self, samples: Samples) -> Tensor:
        """N H W uint8, 255 where unknown and on padding; all unknown where there is no label file."""
        boxes, wholes, flips = samples.box.tolist(), samples.whole.tolist(), samples.flipped.tolist()
        return torch.stack(
            [
                self._one(name, Cutter(samples.size, Size(*whole)), Window(*box), flip)
                for name, box, whole, flip in zip(samples.names, boxes, wholes, flips, strict=True)
            ]
        )

    def _one(self, name: str, cutter: Cutter, window: Window, flip: bool) -> Tensor:
        try:
            label = self._lookup[self._dataset.read_label(name)]
        # Targets without labels are adapted to all the same; there is only nothing to report.
        except DataError:
            return torch.full((window.height, window.width), IGNORE, dtype=torch.uint8)
        return cutter.label(np.ascontiguousarray(resize_label(label, cutter.size)), window, flip)
