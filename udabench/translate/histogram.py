"""Histogram matching: each channel takes on the distribution of the target's values."""

from __future__ import annotations

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.translate.base import Translator
from udabench.translate.draws import partners


class HistogramMatching(Translator):
    """:func:`match_histograms` as a translation engine."""

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        if target is None:
            raise ValueError("HistogramMatching needs target images")
        return match_histograms(source, target[partners(len(source), len(target), target.device)])


def match_histograms(source: Tensor, target: Tensor) -> Tensor:
    """Map each channel's values so that their cumulative distribution is the target's.

    A value goes to the target's value at the same quantile, between two of them linearly (Gonzalez and Woods;
    scikit-image's ``match_histograms``).

    Args:
        source, target: N C H W and N C H' W'.

    Returns:
        N C H W in float32, also under autocast.
    """
    values, wanted = source.flatten(2).float(), target.flatten(2).float().sort(-1).values
    ordered = values.sort(-1).values
    # Of equal values the last one's rank counts: the cumulative distribution from the right.
    ranks = torch.searchsorted(ordered, values, right=True).double()
    ranks *= wanted.shape[-1] / values.shape[-1]
    reached = torch.searchsorted(wanted, wanted, right=True).double()
    above = torch.searchsorted(reached, ranks).clamp(max=wanted.shape[-1] - 1)
    high = wanted.gather(-1, above)
    below = torch.searchsorted(wanted, high)
    low = wanted.gather(-1, (below - 1).clamp(min=0))
    share = (ranks - below) / (reached.gather(-1, above) - below)
    # No target value lies below the first.
    matched = torch.where(below > 0, low + (high - low) * share.clamp(0, 1).float(), high)
    return matched.view_as(source)
