"""Label spaces: class names, colours, the ignore id, the lists of rows that are averaged, and maps between spaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from udabench.errors import UsageError

IGNORE = 255
"""The label id of a pixel whose class is unknown. It is never trained on and never scored."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class LabelSpace:
    """A fixed list of classes.

    Attributes:
        name: identifier, such as ``cityscapes19``.
        names: class names by id.
        palette: RGB 0..255 by id.
        averages: metric name -> class ids that it averages; the first is the space's own headline.
        accepts: name of another space -> for each of its ids, the id here (or 255): a many-to-one map.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[Color, ...]
    averages: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    accepts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{self.name}: {len(self.names)} names but {len(self.palette)} colours")
        if not self.averages:
            object.__setattr__(self, "averages", {f"mIoU{len(self)}": tuple(range(len(self)))})

    def __len__(self) -> int:
        return len(self.names)

    def lookup(self, other: LabelSpace) -> npt.NDArray[np.uint8]:
        """256 entries: the id in this space of each id of ``other``; 255 where there is none."""
        table = np.full(256, IGNORE, np.uint8)
        if other.name == self.name:
            table[: len(self)] = np.arange(len(self))
        elif other.name in self.accepts:
            table[: len(other)] = self.accepts[other.name]
        else:
            raise UsageError(
                f"Labels of '{other.name}' cannot be mapped to '{self.name}' (it accepts: "
                f"{', '.join(self.accepts) or 'only its own'}). Choose data sets whose classes map onto each other."
            )
        return table

    def can_read(self, other: LabelSpace) -> bool:
        """Whether labels of ``other`` can be expressed in this space."""
        return other.name == self.name or other.name in self.accepts


_NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
_PALETTE: tuple[Color, ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
CITYSCAPES_IDS: Mapping[int, int] = {
    **dict.fromkeys(range(-1, 34), IGNORE),
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Label id of Cityscapes' and GTA5's files -> train id; license plate (-1) and everything else is ignored."""
SIXTEEN = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
"""trainIds that SYNTHIA has; terrain, truck and train are missing."""
THIRTEEN = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
"""The sixteen without wall, fence and pole: the average that papers mark with a star."""
TAIL = (3, 6, 7, 12, 14, 15, 16, 17, 18)
"""Rare classes (T2S-DA, appendix C.2)."""

CITYSCAPES19 = LabelSpace(
    name="cityscapes19",
    names=_NAMES,
    palette=_PALETTE,
    averages={"mIoU19": tuple(range(19)), "mIoU16": SIXTEEN, "mIoU13*": THIRTEEN, "tail": TAIL},
)
SYNTHIA16 = LabelSpace(
    name="synthia16",
    names=tuple(_NAMES[i] for i in SIXTEEN),
    palette=tuple(_PALETTE[i] for i in SIXTEEN),
    averages={"mIoU16": tuple(range(16)), "mIoU13*": tuple(SIXTEEN.index(i) for i in THIRTEEN)},
    accepts={"cityscapes19": tuple(SIXTEEN.index(i) if i in SIXTEEN else IGNORE for i in range(19))},
)
SYNTHIA13 = LabelSpace(
    name="synthia13",
    names=tuple(_NAMES[i] for i in THIRTEEN),
    palette=tuple(_PALETTE[i] for i in THIRTEEN),
    averages={"mIoU13*": tuple(range(13))},
    accepts={"cityscapes19": tuple(THIRTEEN.index(i) if i in THIRTEEN else IGNORE for i in range(19))},
)
BUILT_IN = {space.name: space for space in (CITYSCAPES19, SYNTHIA16, SYNTHIA13)}
