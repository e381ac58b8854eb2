"""The data sets: one city, two looks, both splits drawn when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from udabench.dataset import Dataset, Pixels
from udabench.errors import DataError
from udabench.labels import CITYSCAPES19
from udabench.size import Size
from udabench_toycity.camera import HEIGHT, WIDTH
from udabench_toycity.dice import Dice
from udabench_toycity.finish import finish
from udabench_toycity.look import GAME, PHOTO, Look
from udabench_toycity.render import render

VERSION = 1
"""Goes into every picture's key and name: another version is another city."""
DIGEST = "92ad644beb351a02a3e3ae4457d0615a5d7a5efdc5d1f844b5821433b9b6eb0e"
"""What :func:`city_digest` gives; a change of any pixel is another VERSION."""
LENGTHS = {"train": 300, "val": 80}
_FIRST = {"train": 0, "val": 1_000_000}
"""Index of each split's first scene; they can never meet."""


def make_scene(look: Look, seed: int, index: int) -> tuple[Pixels, Pixels]:
    """Scene ``index`` of a city: image, 256 512 3, and trainIds, 256 512. A function of its arguments alone."""
    dice = Dice(VERSION, look.key, seed, index)
    image, style = render(look, dice)
    return finish(image, style, dice)


def city_digest() -> str:
    """SHA-256 over pixels and labels of a few scenes of both looks: the same on every machine."""
    digest = sha256()
    for look in (GAME, PHOTO):
        for index in (0, 1, 2, 3, _FIRST["val"]):
            for array in make_scene(look, 0, index):
                digest.update(array.tobytes())
    return digest.hexdigest()


class ToyCity(Dataset):
    """Street scenes as a game draws them: the source.

    Args:
        root: not used.
        split: ``train`` or ``val``.
        seed: another seed is another city, for as many independent data sets as are needed.
        length: number of scenes; None: 300 for ``train``, 80 for ``val``.
    """

    label_space = CITYSCAPES19
    id_map: ClassVar[Mapping[int, int]] = {i: i for i in range(19)}
    train_size = Size(HEIGHT // 2, WIDTH // 2)
    needs_root = False
    layout = "none: the pictures are drawn"
    obtain = "nothing to obtain: the pictures are drawn when they are read"
    default_preset = "quick"
    look: ClassVar[Look] = GAME
    prefix: ClassVar[str] = "game"

    def __init__(self, root: Path | None, split: str, *, seed: int = 0, length: int | None = None) -> None:
        super().__init__(root, split)
        if seed < 0:
            raise DataError(f"The seed of {type(self).__name__} is {seed}; it must be 0 or more.")
        if length is not None and not 1 <= length <= _FIRST["val"]:
            raise DataError(f"The length of {type(self).__name__} is {length}; it must be 1 to {_FIRST['val']} scenes.")
        self.seed = seed
        self.length = LENGTHS[split] if length is None else length
        self._last: tuple[str, Pixels, Pixels] | None = None

    def list_names(self) -> Sequence[str]:
        first = _FIRST[self.split]
        return [f"{self.prefix}_v{VERSION}_s{self.seed}_{first + i:07d}" for i in range(self.length)]

    def read_image(self, name: str) -> Pixels:
        return self._scene(name)[1]

    def read_ids(self, name: str) -> npt.NDArray[np.integer]:
        return self._scene(name)[2]

    def _scene(self, name: str) -> tuple[str, Pixels, Pixels]:
        """Drawn once for image and label. The pair is replaced whole, so threads may share the data set."""
        last = self._last
        if last is None or last[0] != name:
            last = (name, *make_scene(self.look, self.seed, self._index(name)))
            self._last = last
        return last

    def _index(self, name: str) -> int:
        start, _, index = name.rpartition("_")
        if start != f"{self.prefix}_v{VERSION}_s{self.seed}" or not index.isdigit():
            raise DataError(f"{type(self).__name__} has no scene '{name}'. Its names look like '{self.names[0]}'.")
        return int(index)


class ToyCityReal(ToyCity):
    """The same kind of streets as a camera sees them, with other scenes: the target."""

    look = PHOTO
    prefix = "photo"
