"""The pseudo-labels that a run has stored: how many pixels each version claims, how many of these are right, and
pictures. Nothing is predicted again, so no weights are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from udabench.analysis.figures import new_figure
from udabench.analysis.images import TRAINING_LIMIT, Case, Images, open_images, some
from udabench.engine.artefacts import PICTURE, find_value, read_value
from udabench.engine.files import replacing, write_text
from udabench.engine.folder import RunFolder
from udabench.engine.metrics import read_metrics
from udabench.engine.pictures import to_rgb
from udabench.engine.referee import Tally
from udabench.errors import DataError, UsageError
from udabench.labels import IGNORE, LabelSpace
from udabench.run.plan import Plan
from udabench.run.trained import run_folder_of, stored_plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIDENCE = "-confidence"
"""What is stored beside labels called ``x`` as ``x-confidence``: the largest probability in steps of 1/255."""
DRAWN = 4
"""Images of each version's picture."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Version:
    """Labels of one artefact, as one pass wrote them.

    Attributes:
        stage, iteration: whose ``prepare`` it was, and at which of the stage's iterations.
        artefact: its name.
        folder: where the files lie, ``<sample>.png``.
    """

    stage: str
    iteration: int
    artefact: str
    folder: Path

    @property
    def title(self) -> str:
        """``labels-1/0/pseudo_label``."""
        return f"{self.stage}/{self.iteration}/{self.artefact}"

    def label(self, name: str, case: Case) -> Tensor | None:
        """H W int64; None where this image has none. Raises DataError for a label of another size."""
        if find_value(self.folder, name) is None:
            return None
        label = read_value(self.folder, name)
        if label.shape != case.samples.image.shape[-2:]:
            raise DataError(
                f"{self.folder / name}{PICTURE} is {label.shape[-1]}x{label.shape[-2]}, but its image is trained on at "
                f"{case.samples.size}: a file of another run? Remove it."
            )
        return label

    def confidence(self, name: str) -> Tensor | None:
        """H W in [0, 1]; None where none is stored."""
        folder = self.folder.with_name(self.artefact + CONFIDENCE)
        return None if find_value(folder, name) is None else read_value(folder, name).float() / 255


@dataclass
class Found:
    """What one version's labels are worth.

    Attributes:
        tally: of all images that have a label.
        claimed: C, labelled pixels of each class.
        images: how many have a label.
        foreign: names of files that belong to no training image.
        pages: image, label and, where they are there, truth and confidence of a few images.
    """

    version: Version
    classes: LabelSpace
    tally: Tally
    claimed: Tensor
    foreign: Sequence[str]
    images: int = 0
    pages: list[tuple[str, dict[str, Tensor]]] = field(default_factory=list)

    def add(self, label: Tensor, truth: Tensor | None) -> None:
        """One image's labels H W, and what is true of them."""
        claims = label != IGNORE
        matrix = torch.zeros(len(self.classes), len(self.classes), dtype=torch.float64)
        if truth is not None:
            known = claims & (truth != IGNORE)
            index = truth[known].long() * len(self.classes) + label[known]
            matrix = torch.bincount(index, minlength=matrix.numel()).view_as(matrix).double()
        self.claimed += torch.bincount(label[claims], minlength=len(self.classes))
        self.tally += Tally(claims.sum(), torch.tensor(label.numel()), matrix)
        self.images += 1

    def table(self) -> pd.DataFrame:
        """A row for each class, then ``all``: share of all pixels, accuracy of the claimed and known ones, IoU."""
        assert self.tally.matrix is not None
        right, told = self.tally.matrix.diagonal(), self.tally.matrix.sum(0)
        union = told + self.tally.matrix.sum(1) - right
        scores = {name: float(value) for name, value in self.tally.scores().items()}
        version = self.version
        return pd.DataFrame(
            {
                "stage": version.stage,
                "iteration": version.iteration,
                "artefact": version.artefact,
                "images": self.images,
                "class": [*self.classes.names, "all"],
                "share": [*(self.claimed / self.tally.valid).tolist(), scores["density"]],
                "accuracy": [*(right / told).tolist(), scores["accuracy"]],
                "iou": [*(right / union).tolist(), scores["miou"]],
            }
        )

    def draw(self) -> Figure:
        """A row for each of a few images: image, label, truth, confidence."""
        columns = list(dict.fromkeys(column for _, pictures in self.pages for column in pictures))
        figure = new_figure(3.6 * len(columns), 0.4 + 2.0 * len(self.pages))
        axes = figure.subplots(len(self.pages), len(columns), squeeze=False)
        for row, (name, pictures) in zip(axes, self.pages, strict=True):
            for axis, column in zip(row, columns, strict=True):
                axis.set_axis_off()
                axis.set_title(f"{column}  {name}" if column == columns[0] else column, fontsize=7)
                if column in pictures:
                    axis.imshow(to_rgb(pictures[column], self.classes)[0].permute(1, 2, 0).numpy())
        return figure


def versions_of(folder: RunFolder, classes: LabelSpace) -> list[Version]:
    """Everything that the run has stored and that is class ids, in the order of its passes. Raises UsageError."""
    order = list(dict.fromkeys(entry["stage"] for entry in read_metrics(folder.metrics)))
    found = [
        Version(path.parts[-3], int(path.parts[-2]), path.name, path)
        for path in folder.artefacts.glob("*/*/*")
        if path.is_dir() and path.parts[-2].isdecimal() and _holds_labels(path, len(classes))
    ]
    if not found:
        raise UsageError(
            f"{folder.path} has stored no pseudo-labels: its method labels while it trains, or its passes were not "
            "reached. What a network would label: udabench analyze RUN --only pseudo-labels"
        )

    def place(version: Version) -> tuple[object, ...]:
        known = order.index(version.stage) if version.stage in order else len(order)
        return known, _natural(version.stage), version.iteration, version.artefact

    return sorted(found, key=place)


def look_at(
    path: Path, plugins: Sequence[Path] = (), limit: int | None = None, progress: Progress = lambda *_: None
) -> list[Found]:
    """What a run's stored labels are worth.

    Args:
        path: the run folder.
        limit: images that are looked at, evenly spread; None: as many as analyses do.
        progress: told ``(what, done, total)``.

    Raises:
        UsageError: nothing is stored.
        DataError: a file is damaged or of another size.
    """
    folder = RunFolder(run_folder_of(path))
    plan = stored_plan(folder, plugins)
    every = open_images(plan, "adapted", limit=2**62)
    seen = replace(every, dataset=some(every.dataset, limit or TRAINING_LIMIT))
    known = set(every.dataset.names)
    versions = versions_of(folder, plan.task.classes)
    return [_walk(plan, version, seen, known, progress) for version in versions]


def write_found(found: Sequence[Found], folder: Path) -> None:
    """``stored-labels.csv``, and a picture of each version beside it. Raises DiskFull."""
    table = pd.concat([one.table() for one in found], ignore_index=True)
    write_text(folder / "stored-labels.csv", table.to_csv(index=False))
    for one in found:
        if one.pages:
            name = "-".join(one.version.title.split("/"))
            with replacing(folder / "stored-labels" / f"{name}.png") as path:
                one.draw().savefig(path, bbox_inches="tight")


def _walk(plan: Plan, version: Version, images: Images, known: set[str], progress: Progress) -> Found:
    classes = plan.task.classes
    zeros = torch.zeros(len(classes), len(classes), dtype=torch.float64)
    tally = Tally(torch.tensor(0), torch.tensor(0), zeros)
    foreign = sorted(set(_names(version.folder)) - known)
    found = Found(version, classes, tally, torch.zeros(len(classes), dtype=torch.int64), foreign)
    drawn = set(some(images.dataset, DRAWN).names)
    for number, (name, case) in enumerate(zip(images.dataset.names, images.read(), strict=True), 1):
        label = version.label(name, case)
        if label is not None:
            found.add(label, case.label)
            if name in drawn:
                found.pages.append((name, _page(case, label, version.confidence(name))))
        progress(version.title, number, len(images))
    return found


def _page(case: Case, label: Tensor, confidence: Tensor | None) -> dict[str, Tensor]:
    page = {"image": case.samples.image.float() / 255, "label": label[None]}
    if case.label is not None:
        page["truth"] = case.label[None]
    if confidence is not None:
        page["confidence"] = confidence[None]
    return page


def _holds_labels(folder: Path, classes: int) -> bool:
    """Whether the first file holds class ids H W."""
    name = next(_names(folder), None)
    if name is None:
        return False
    value = read_value(folder, name)
    return (
        value.dim() == 2
        and not folder.name.endswith(CONFIDENCE)
        and bool(((value < classes) | (value == IGNORE)).all())
    )


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob(f"*{PICTURE}")):
        if not path.name.startswith("."):
            yield str(path.relative_to(folder)).removesuffix(PICTURE)


def _natural(name: str) -> tuple[object, ...]:
    """``labels-2`` before ``labels-10``."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)
