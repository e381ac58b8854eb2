"""Cityscapes: names come from the images alone, so that a target without any label file works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from udabench.data.files import list_files, read_ids, read_rgb
from udabench.dataset import Dataset, Pixels
from udabench.errors import DataError
from udabench.labels import CITYSCAPES19, CITYSCAPES_IDS, IGNORE
from udabench.size import Size

IMAGE = "_leftImg8bit.png"
LABEL_IDS = "_gtFine_labelIds.png"
TRAIN_IDS = "_gtFine_labelTrainIds.png"


class Cityscapes(Dataset):
    """Cordts et al., The Cityscapes dataset, CVPR 2016; fine annotations.

    ``labelIds`` files are read; where there is none, ``labelTrainIds``. The labels of ``test`` are not public.
    """

    root: Path
    label_space = CITYSCAPES19
    id_map: ClassVar[Mapping[int, int]] = {**CITYSCAPES_IDS, IGNORE: IGNORE}
    """255 is what -1 (license plate) becomes in a file of 8 bits."""
    splits = ("train", "val", "test")
    train_size = Size(height=512, width=1024)
    usual_counts: ClassVar[Mapping[str, int]] = {"train": 2975, "val": 500, "test": 1525}
    layout = """\
  cityscapes/
    leftImg8bit/{train,val,test}/<city>/<city>_000000_000000_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_000000_000000_gtFine_labelIds.png    (or ..._labelTrainIds.png; not needed for
                                                                           train where it is only adapted to)"""
    obtain = (
        "register at cityscapes-dataset.com, download leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip and "
        "unpack both into one folder."
    )

    def list_names(self) -> Sequence[str]:
        return list(self._cities)

    def read_image(self, name: str) -> Pixels:
        return read_rgb(self.root / "leftImg8bit" / self.split / self._cities[name] / f"{name}{IMAGE}")

    def read_ids(self, name: str) -> npt.NDArray[np.integer]:
        if self.split == "test":
            raise DataError("The labels of Cityscapes' test split are not public. Evaluate on val.")
        path = Path(self.label_path(name))
        ids = read_ids(path)
        return _to_label_ids(ids, path) if path.name.endswith(TRAIN_IDS) else ids

    def has_label(self, name: str) -> bool:
        return self.split != "test" and (
            self._label(name, LABEL_IDS).is_file() or self._label(name, TRAIN_IDS).is_file()
        )

    def label_path(self, name: str) -> str:
        ids, path = self._label(name, LABEL_IDS), self._label(name, TRAIN_IDS)
        return str(path if path.is_file() and not ids.is_file() else ids)

    def _label(self, name: str, ending: str) -> Path:
        return self.root / "gtFine" / self.split / self._cities[name] / f"{name}{ending}"

    @cached_property
    def _cities(self) -> Mapping[str, str]:
        """Name -> the folder that it lies in."""
        files = list_files(self.root / "leftImg8bit" / self.split, IMAGE, self.layout)
        return {PurePosixPath(file).name.removesuffix(IMAGE): str(PurePosixPath(file).parent) for file in files}


def _to_label_ids(train_ids: Pixels, path: Path) -> npt.NDArray[np.integer]:
    """Train ids back to label ids, so that one map serves both kinds of file."""
    table = np.full(256, -1, np.int16)
    known = np.zeros(256, bool)
    known[IGNORE] = True
    for label_id, train_id in CITYSCAPES_IDS.items():
        if train_id != IGNORE:
            table[train_id], known[train_id] = label_id, True
    if not known[train_ids].all():
        strange = sorted(set(np.unique(train_ids).tolist()) - set(np.flatnonzero(known).tolist()))
        raise DataError(f"{path} holds the train id(s) {', '.join(map(str, strange))}; known are 0 to 18 and 255.")
    return table[train_ids]
