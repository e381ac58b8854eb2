"""The values of ADVENT: those of output alignment, and whether a second network is trained beside it."""

from __future__ import annotations

from udabench.config import setting
from udabench.parts.output_aligner import OutputAlignmentConfig


class AdventConfig(OutputAlignmentConfig):
    ensemble: bool = setting(
        False,
        "train a second network by direct entropy minimisation, with the same weights of its losses, in the other half "
        "of the steps; what is evaluated is the mean of both networks' logits",
        origin="ADVENT code (a configuration of its evaluation with weights 0.5 and 0.5)",
        stages="min_entropy",
    )
