"""The interface of an analysis: it sees images one by one, and ends in a table, a picture and a summary.

Nothing of an image may be kept but sums and samples of fixed size: an evaluation set must fit in constant memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.analysis.figures import Tables, draw_bars
from udabench.config import RunConfig, Section
from udabench.evaluate.prediction import score_blocks
from udabench.labels import LabelSpace
from udabench.method import Method, Samples
from udabench.size import Size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Place = Literal["target", "source", "adapted"]
"""``target``: the target's evaluation split. ``source``: the source's training split. ``adapted``: the target's
training split, by the network that makes its pseudo-labels (the teacher, where there is one)."""
OVERALL = ("mean", "all")
"""Names of rows that are no class."""


class Claim(NamedTuple):
    """What a network says of each pixel.

    Attributes:
        label: H W uint8, the most probable class.
        confidence: H W, its probability.
        entropy: H W, Shannon entropy of the class probabilities in nats.
    """

    label: Tensor
    confidence: Tensor
    entropy: Tensor


def claim_of(logits: Tensor, size: Size, align_corners: bool = False) -> Claim:
    """The claim of one image's logits, 1 C h w, at ``size``; logits of that size never exist at once."""
    label = torch.empty(size, dtype=torch.uint8, device=logits.device)
    confidence, entropy = (torch.empty(size, device=logits.device) for _ in range(2))
    for here, scores in score_blocks(logits, size, align_corners):
        probability = scores[0].softmax(0)
        confidence[here], best = probability.max(0)
        label[here] = best.to(torch.uint8)
        entropy[here] = torch.special.entr(probability).sum(0)
    return Claim(label, confidence, entropy)


@dataclass
class Seen:
    """One image, and what the network made of it.

    Attributes:
        place: which images it is one of.
        samples: the network's input, N = 1, without labels.
        features: D h w, of the last map of the encoder, or the logits.
        logits: 1 C h' w', before upsampling.
        scores: 1 C h" w", before any upsampling, also that of a network that upsamples by itself; None: the logits.
        truth: H W uint8, 255 where unknown; None where there is no label.
        size: at which claims and truth are compared: the label's own, or the input's on ``adapted``.
        align_corners: how logits meet that size.
    """

    place: Place
    samples: Samples
    features: Tensor
    logits: Tensor
    truth: Tensor | None
    size: Size
    align_corners: bool = False
    scores: Tensor | None = None

    @cached_property
    def grid(self) -> Tensor:
        """h w int64: the labels on the grid of the features, nearest; 255 where unknown."""
        assert self.truth is not None
        small = interpolate(self.truth[None, None].float(), self.features.shape[-2:], mode="nearest")
        return small[0, 0].long()

    @cached_property
    def claim(self) -> Claim:
        """What the network says at ``size``."""
        return claim_of(self.logits, self.size, self.align_corners)


@dataclass(frozen=True)
class Subject:
    """The run that is looked at."""

    method: Method
    config: RunConfig
    classes: LabelSpace


class Analysis(ABC):
    """One question, asked of one run; a new object for each.

    Attributes:
        rounds: the images that are walked over in each round; of analyses that are made together, those with the same
            images in the same round share the network's forward passes.
        bars: columns of a table by class that are drawn and summed up -> what the axis says.
        needs: modules beside those that are always installed -> how to get each.
    """

    Config: ClassVar[type[Section]] = Section
    """Its keys (``--set <analysis>.<key>=value``), declared with :func:`udabench.setting`."""
    rounds: ClassVar[tuple[tuple[Place, ...], ...]] = (("target",),)
    bars: ClassVar[Mapping[str, str]] = {}
    needs: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Any, subject: Subject) -> None:
        """``config`` is an instance of :attr:`Config`."""
        self.config = config
        self.subject = subject
        self.classes = len(subject.classes)

    @abstractmethod
    def look(self, seen: Seen, turn: int) -> None:
        """One image of round ``turn``, from 0."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """What was found: the rows that this run adds to the CSV file."""

    def notes(self) -> Mapping[str, Any]:
        """What a reader must know beside it, for the JSON file. No NaN."""
        return {}

    @classmethod
    def remarks(cls, tables: Tables) -> Sequence[str]:
        """Sentences for the terminal, below the summary."""
        return ()

    @classmethod
    def draw(cls, tables: Tables, classes: LabelSpace) -> Figure:
        """The picture of several runs; as it stands, :attr:`bars` by class, the runs side by side."""
        return draw_bars(tables, classes, cls.bars)

    @classmethod
    def summary(cls, tables: Tables) -> pd.DataFrame:
        """For the terminal: an index, and a column or more for each run. As it stands, :attr:`bars` by class."""
        columns = {}
        for run, table in tables.items():
            for column in cls.bars:
                name = f"{run}\n{column}" if len(cls.bars) > 1 else run
                columns[name] = table.set_index("class")[column]
        return pd.DataFrame(columns)

    def by_class(self, overall: str, columns: Mapping[str, Tensor], last: Mapping[str, float]) -> pd.DataFrame:
        """A table with a row for each class, then one named ``overall`` with the values ``last``."""
        values = {name: [*tensor.tolist(), last.get(name)] for name, tensor in columns.items()}
        return pd.DataFrame({"class": [*self.subject.classes.names, overall], **values})
