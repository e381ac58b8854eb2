"""SYNTHIA: 16-bit PNGs with several channels, the class in the first (RGB order)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from udabench.data.files import keep_listed, list_files, read_ids16, read_rgb
from udabench.dataset import Dataset, Pixels
from udabench.labels import CITYSCAPES19, IGNORE, SIXTEEN
from udabench.size import Size


class Synthia(Dataset):
    """Ros et al., The SYNTHIA dataset, CVPR 2016; the subset SYNTHIA-RAND-CITYSCAPES (CVPR16).

    Terrain, truck and train never occur: ``present`` are the other 16 classes.
    """

    root: Path
    label_space = CITYSCAPES19
    id_map: ClassVar[Mapping[int, int]] = {
        **dict.fromkeys(range(23), IGNORE),
        3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13, 18: 14, 19: 15,
        20: 16, 12: 17, 11: 18,
    }  # fmt: skip
    splits = ("train",)
    train_size = Size(height=760, width=1280)
    present = SIXTEEN
    usual_counts: ClassVar[Mapping[str, int]] = {"train": 9_400}
    layout = """\
  synthia/
    RGB/0000000.png ... 0009399.png          RGB, 1280x760
    GT/LABELS/0000000.png ... 0009399.png    16 bit, several channels: class in the first, instance in the second"""
    obtain = (
        "download SYNTHIA-RAND-CITYSCAPES (CVPR16), not another subset, from synthia-dataset.net and name its folder "
        "'synthia'. GT/LABELS is read as it is: neither GT/COLOR nor a converted 'mapped to Cityscapes' set is needed."
    )

    def __init__(self, root: Path, split: str, list_file: str | None = None) -> None:
        """``list_file``: a text file with the names to keep. A filtered list is another experiment; its digest is in
        the record."""
        super().__init__(root, split)
        self.list_file = list_file

    def list_names(self) -> Sequence[str]:
        names = [Path(file).stem for file in list_files(self.root / "RGB", ".png", self.layout)]
        return keep_listed(names, Path(self.list_file)) if self.list_file else names

    def read_image(self, name: str) -> Pixels:
        return read_rgb(self.root / "RGB" / f"{name}.png")

    def read_ids(self, name: str) -> npt.NDArray[np.integer]:
        return read_ids16(Path(self.label_path(name)), channel=0)

    def has_label(self, name: str) -> bool:
        return Path(self.label_path(name)).is_file()

    def label_path(self, name: str) -> str:
        return str(self.root / "GT" / "LABELS" / f"{name}.png")
