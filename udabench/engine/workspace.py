"""The Workspace that ``prepare`` gets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from udabench.data.batches import samples_to_device
from udabench.engine.artefacts import checked, find_value, read_table, read_value, write_table, write_value
from udabench.engine.seeding import seed_everything
from udabench.errors import UsageError
from udabench.method import Domain, Samples
from udabench.world import meet, rank, world_size

OpenImages = Callable[[Domain, Callable[[str], bool]], Iterable[Samples]]
"""``open_images(domain, skip)``: whole resized training images one at a time, on the CPU, unlabelled for the target;
names for which ``skip`` is true are left out unread. It is asked once of each name, in order."""


class RunWorkspace:
    """One version's artefacts; see :class:`udabench.method.Workspace`.

    Args:
        folder: of this version.
        open_images: the training images of a domain.
        device: where the method is.
        place: seeds the global generators before each image, so that a pass that was killed and goes on draws the same.
        check: called before each image with its place in the list, from 1, and the list's length; may raise to stop.
    """

    def __init__(
        self,
        folder: Path,
        open_images: OpenImages,
        device: torch.device,
        place: tuple[object, ...] = (),
        check: Callable[[int, int], None] = lambda place, whole: None,
    ) -> None:
        self.folder = folder
        self._open_images = open_images
        self._device = device
        self._place = place
        self._check = check

    def images(self, domain: Domain, skip_done: str | None = None, share: bool = False) -> Iterator[Samples]:
        place, whole, shared = 0, self.count(domain), share or skip_done is not None

        def skip(name: str) -> bool:
            nonlocal place
            place += 1
            # Turns go by the whole list, whatever is done of it: no two ranks take the same image.
            others = shared and (place - 1) % world_size() != rank()
            return others or (skip_done is not None and self.has(skip_done, name))

        for samples in self._open_images(domain, skip):
            self._check(place, whole)
            seed_everything(*self._place, domain, *samples.names)
            yield samples_to_device(samples, self._device)
        if shared:
            meet()

    def count(self, domain: Domain) -> int:
        numbers = itertools.count()

        def skip(name: str) -> bool:
            # Every name is left out, and with it its image unread.
            next(numbers)
            return True

        list(self._open_images(domain, skip))
        return next(numbers)

    def write(self, artefact: str, name: str, value: Tensor) -> None:
        write_value(self.folder / checked(artefact), name, value)

    def has(self, artefact: str, name: str) -> bool:
        return find_value(self.folder / checked(artefact), name) is not None

    def read(self, artefact: str, name: str) -> Tensor:
        return read_value(self.folder / checked(artefact), name)

    def write_table(self, artefact: str, values: Mapping[str, Tensor]) -> None:
        write_table(self.folder, artefact, values)

    def read_table(self, artefact: str) -> Mapping[str, Tensor] | None:
        return read_table(self.folder, artefact)


def no_images(domain: Domain, skip: Callable[[str], bool]) -> Iterable[Samples]:
    """Stands in where no stage prepares anything."""
    raise UsageError(f"A stage's prepare asks for the images of the {domain}, but the training was given none.")
