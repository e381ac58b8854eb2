"""GTA5: palette PNGs whose indices are Cityscapes label ids; image sizes differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from udabench.data.files import keep_listed, list_files, read_ids, read_rgb
from udabench.dataset import Dataset, Pixels
from udabench.labels import CITYSCAPES19, CITYSCAPES_IDS, IGNORE
from udabench.size import Size


class Gta5(Dataset):
    """Richter et al., Playing for Data, ECCV 2016. All frames are one training split, as every paper uses them."""

    root: Path
    label_space = CITYSCAPES19
    id_map: ClassVar[Mapping[int, int]] = {**CITYSCAPES_IDS, 34: IGNORE}
    splits = ("train",)
    train_size = Size(height=720, width=1280)
    usual_counts: ClassVar[Mapping[str, int]] = {"train": 24_966}
    layout = """\
  gta5/
    images/00001.png ... 24966.png    RGB, 1914x1052 (some differ)
    labels/00001.png ... 24966.png    palette, index = Cityscapes label id"""
    obtain = (
        "download all ten parts of images and of labels from the 'Playing for Data' page of TU Darmstadt "
        "(download.visinf.tu-darmstadt.de/data/from_games) and unpack them into one folder; no conversion is needed."
    )

    def __init__(self, root: Path, split: str, list_file: str | None = None) -> None:
        """``list_file``: a text file with the names to keep. A filtered list is another experiment; its digest is in
        the record."""
        super().__init__(root, split)
        self.list_file = list_file

    def list_names(self) -> Sequence[str]:
        names = [Path(file).stem for file in list_files(self.root / "images", ".png", self.layout)]
        return keep_listed(names, Path(self.list_file)) if self.list_file else names

    def read_image(self, name: str) -> Pixels:
        return read_rgb(self.root / "images" / f"{name}.png")

    def read_ids(self, name: str) -> Pixels:
        return read_ids(Path(self.label_path(name)))

    def has_label(self, name: str) -> bool:
        return Path(self.label_path(name)).is_file()

    def label_path(self, name: str) -> str:
        return str(self.root / "labels" / f"{name}.png")
