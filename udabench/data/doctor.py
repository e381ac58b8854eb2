"""What a data set on disk is like: counts, pairs, broken files, sizes, class frequencies. Opens every file once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from udabench.data.files import check_same_size, open_image, open_label
from udabench.data.parallel import Progress, parallel
from udabench.data.statistics import count_classes
from udabench.dataset import Dataset
from udabench.errors import DataError
from udabench.labels import LabelSpace
from udabench.size import Size

SHOWN = 20
"""Problems that are printed; the rest are counted."""


@dataclass(frozen=True)
class Report:
    """The findings.

    Attributes:
        dataset, split, root: what was looked at.
        images: listed by name.
        usual: how many a complete download has, where that is known.
        checked: how many were opened.
        labelled: images that have a label file; a split without any can still be adapted to.
        missing: labels that do not exist, though others of the split do.
        problems: one message a broken sample, each naming its file.
        sizes: ``WIDTHxHEIGHT`` of the images -> how many.
        space: the classes of ``pixels`` and ``frames``.
        pixels: labelled pixels of each class.
        frames: images that show each class.
        unknown: pixels without a class.
        absent: classes that should occur, but do not.
    """

    dataset: str
    split: str
    root: str
    images: int
    usual: int | None
    checked: int
    labelled: int
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    sizes: Mapping[str, int]
    space: LabelSpace
    pixels: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    unknown: int
    absent: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether a training can use every sample with its label."""
        return bool(self.images) and not self.problems and not self.missing

    def __rich__(self) -> Group:
        return Group(*self._parts())

    def _parts(self) -> Iterator[Table | str]:
        yield self._summary()
        if not self.images:
            yield "[red]problem[/] there are no images"
        if self.pixels.sum():
            yield self._classes()
        for what, lines in (("missing label", self.missing), ("problem", self.problems)):
            yield from (f"[red]{what}[/] {escape(line)}" for line in lines[:SHOWN])
            if len(lines) > SHOWN:
                yield f"[red]... and {len(lines) - SHOWN} more[/]"
        yield "[green]No problem found.[/]" if self.healthy else "[red]This data set needs mending.[/]"

    def _summary(self) -> Table:
        table = Table(title=f"{self.dataset} {self.split}", show_header=False, title_justify="left")
        table.add_row("folder", escape(self.root))
        usual = f" (a complete download has {self.usual})" if self.usual not in (None, self.images) else ""
        table.add_row("images", f"{self.images}{usual}")
        table.add_row("opened", str(self.checked))
        table.add_row("labels", str(self.labelled) if self.labelled else "none: it can only be adapted to")
        table.add_row("problems", str(len(self.problems)))
        common = Counter(self.sizes).most_common(6)
        more = f", {len(self.sizes) - len(common)} other sizes" if len(self.sizes) > len(common) else ""
        table.add_row("image sizes", ", ".join(f"{size} ({count})" for size, count in common) + more)
        if self.absent:
            table.add_row("classes that never occur", ", ".join(self.absent))
        return table

    def _classes(self) -> Table:
        table = Table("id", "class", "share of pixels", "images")
        known = int(self.pixels.sum())
        for c, name in enumerate(self.space.names):
            table.add_row(str(c), name, f"{100 * self.pixels[c] / known:.3f} %", str(self.frames[c]))
        table.add_row("", "(no class)", f"{100 * self.unknown / (known + self.unknown):.3f} % of all", "")
        return table


class _Finding(NamedTuple):
    size: str | None = None
    counts: npt.NDArray[np.int64] | None = None
    unknown: int = 0
    problem: str | None = None


def diagnose(
    dataset: Dataset, limit: int | None = None, threads: int | None = None, progress: Progress | None = None
) -> Report:
    """Open every sample of a split (or ``limit`` of them, evenly spread) and report.

    Raises:
        DataError: the folder is not as expected at all; everything smaller is in the report.
    """
    names = dataset.names
    chosen = names if limit is None else [names[i] for i in spread(len(names), limit)]
    without = [name for name in names if not dataset.has_label(name)]
    findings = list(parallel(lambda name: _look(dataset, name), chosen, threads, progress))
    classes = len(dataset.label_space)
    counts = np.array([f.counts for f in findings if f.counts is not None], np.int64).reshape(-1, classes)
    expected = dataset.present if dataset.present is not None else range(classes)
    pixels = counts.sum(axis=0)
    return Report(
        dataset=type(dataset).__name__,
        split=dataset.split,
        root=str(dataset.root) if dataset.root else "generated",
        images=len(names),
        usual=dataset.usual_counts.get(dataset.split),
        checked=len(chosen),
        labelled=len(names) - len(without),
        missing=tuple(dataset.label_path(name) for name in without) if len(without) < len(names) else (),
        problems=tuple(f.problem for f in findings if f.problem),
        sizes=Counter(f.size for f in findings if f.size),
        space=dataset.label_space,
        pixels=pixels,
        frames=(counts > 0).sum(axis=0),
        unknown=sum(f.unknown for f in findings),
        absent=tuple(dataset.label_space.names[c] for c in expected if not pixels[c]) if len(counts) else (),
    )


def spread(total: int, wanted: int) -> list[int]:
    """``wanted`` indices below ``total``, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(wanted, total))})


def _look(dataset: Dataset, name: str) -> _Finding:
    try:
        image = open_image(dataset, name)
    except DataError as error:
        return _Finding(problem=str(error))
    size = str(Size(*image.shape[:2]))
    if not dataset.has_label(name):
        return _Finding(size)
    try:
        label = open_label(dataset, name)
        check_same_size(image, label, name, dataset.label_path(name))
    except DataError as error:
        return _Finding(size, problem=str(error))
    counts = count_classes(label, len(dataset.label_space))
    return _Finding(size, counts, label.size - int(counts.sum()))
