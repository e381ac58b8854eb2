"""How well the classes are told apart in feature space: CCD and PDD (T2S-DA, Eq 14 and 15). Lower is better.

Two rounds over the images: the first for the class means, the second for the distances to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from udabench.analysis.base import Analysis, Place, Seen, Subject
from udabench.analysis.means import ClassSums, labelled_pixels, mean_over_known
from udabench.config import Section, setting


class CCDConfig(Section):
    divisor: Literal["present", "literal"] = setting(
        "present",
        "a class' ratios are averaged over the other classes that occur, or divided by C - 1 whatever occurs",
        origin="paper Eq 14",
    )


class ClassCenterDistance(Analysis):
    """CCD: mean squared distance to the own mean, over the squared distance to another mean, averaged over others.

    Classes that do not occur leave the sums.
    """

    Config = CCDConfig
    config: CCDConfig
    rounds: ClassVar[tuple[tuple[Place, ...], ...]] = (("target",), ("target",))
    bars: ClassVar[Mapping[str, str]] = {"ccd": "CCD (lower is better)"}

    def __init__(self, config: CCDConfig, subject: Subject) -> None:
        super().__init__(config, subject)
        self.centers = ClassSums(self.classes)
        self.within = ClassSums(self.classes)

    def look(self, seen: Seen, turn: int) -> None:
        means = self.centers.means() if turn else None
        for pixels, label in labelled_pixels(seen.features, seen.grid, self.classes):
            if means is None:
                self.centers.add(pixels, label)
            else:
                self.within.add(pixels.sub_(means[label]).square_().sum(1), label)

    def table(self) -> pd.DataFrame:
        means, within = self.centers.means(), self.within.means().flatten()
        between = (means[:, None] - means[None]).square().sum(-1)
        others = others_of(self.centers.counts)
        ratios = torch.where(others, within[:, None] / between, 0).sum(1)
        count = others.sum(1) if self.config.divisor == "present" else self.classes - 1
        ccd = torch.where(others.any(1), ratios / count, torch.nan)
        columns = {"pixels": self.centers.counts, "within": within, "ccd": ccd}
        return self.by_class("mean", columns, {"ccd": mean_over_known(ccd), "pixels": float(columns["pixels"].sum())})


class PixelDiscrimination(Analysis):
    """PDD: 1 minus the mean over a class' pixels of cos(x, own mean) over the sum of cos(x, another mean).

    On the positive part of the features (ReLU): with negative cosines the denominator crosses 0. A pixel without any
    positive feature, or at right angles to all other means, has no such ratio and is left out.
    """

    rounds: ClassVar[tuple[tuple[Place, ...], ...]] = (("target",), ("target",))
    bars: ClassVar[Mapping[str, str]] = {"pdd": "PDD (lower is better)"}

    def __init__(self, config: Section, subject: Subject) -> None:
        super().__init__(config, subject)
        self.centers = ClassSums(self.classes)
        self.ratios = ClassSums(self.classes)
        self.negative = False

    def look(self, seen: Seen, turn: int) -> None:
        for values, label in labelled_pixels(seen.features, seen.grid, self.classes):
            pixels = values.relu()
            if turn == 0:
                self.centers.add(pixels, label)
                self.negative = self.negative or bool((values < 0).any())
            else:
                self._compare(pixels, label)

    def _compare(self, pixels: Tensor, label: Tensor) -> None:
        means = normalize(self.centers.means(), dim=1).nan_to_num(0)
        cosines = pixels @ means.T / pixels.norm(dim=1, keepdim=True)
        own = cosines.gather(1, label[:, None]).flatten()
        others = cosines.sum(1) - own
        # What is left of a sum of C terms by rounding is no denominator; nor is NaN, of a pixel that is 0.
        defined = others > 1e-12
        self.ratios.add((own / others)[defined], label[defined])

    def table(self) -> pd.DataFrame:
        several = others_of(self.centers.counts).any(1)
        pdd = torch.where(several, 1 - self.ratios.means().flatten(), torch.nan)
        counts = self.ratios.counts
        columns = {"pixels": counts, "pdd": pdd}
        return self.by_class("mean", columns, {"pdd": mean_over_known(pdd), "pixels": float(counts.sum())})

    def notes(self) -> Mapping[str, Any]:
        given = "the positive part (ReLU) of features that have negative values" if self.negative else "as they are"
        left_out = int((self.centers.counts - self.ratios.counts.to(self.centers.counts)).sum())
        return {"pdd features": given, "pixels without a ratio": left_out}


def others_of(counts: Tensor) -> Tensor:
    """C C bool: whether both classes occur and differ."""
    present = counts > 0
    same = torch.eye(len(counts), dtype=torch.bool, device=counts.device)
    return present[:, None] & present[None] & ~same
