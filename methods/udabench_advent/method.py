"""ADVENT (Vu et al., "ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic Segmentation", 2019).

AdvEnt aligns maps of self-information. MinEnt, which minimises the entropy itself, is the method ``min_entropy``; the
ensemble trains a network by each, one after the other, and averages what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from udabench.method import Method, Samples, Setup, Stage
from udabench.parts.lengths import even_lengths
from udabench.parts.output_aligner import OutputAligner
from udabench_advent.config import AdventConfig

MIN_ENTROPY = "min_entropy"


class Advent(OutputAligner):
    """Maps of ``-p log p / log C`` are aligned; with ``ensemble``, beside a network of MinEnt."""

    Config = AdventConfig
    space = "self_information"
    config: AdventConfig
    joined: Tensor
    """Bool: whether the second network has seen a step."""

    def __init__(self, config: AdventConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.other: Method | None = None
        self.length = setup.iterations
        if config.ensemble:
            self.length, length = even_lengths(setup.iterations, 2)
            self.other = setup.method(MIN_ENTROPY, _min_entropy_values(config), length)
            self.register_buffer("joined", torch.zeros((), dtype=torch.bool))

    def stages(self) -> Sequence[Stage]:
        return [*(replace(stage, iterations=self.length) for stage in super().stages()), *self._other_stages()]

    def _other_stages(self) -> Iterator[Stage]:
        if self.other is not None:
            (stage,) = self.other.stages()
            yield replace(stage, name=MIN_ENTROPY, after_step=self._join)

    def _join(self, iteration: int) -> None:
        if iteration == 0:
            self.joined.fill_(True)

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        """The mean first, then each network; AdvEnt alone is the student."""
        if self.other is None:
            return {"student": self.predict}
        return {"mean": self.predict, "advent": super().predict, MIN_ENTROPY: self.other.predict}

    def predict(self, samples: Samples) -> Tensor:
        """The mean of both networks' logits, or AdvEnt's until the second one is trained."""
        logits = super().predict(samples)
        if self.other is None or not self.joined:
            return logits
        return (logits + self.other.predict(samples)) / 2


def _min_entropy_values(config: AdventConfig) -> dict[str, object]:
    """As its Config has them."""
    return {
        "entropy_weight": config.adversarial_weight,
        "auxiliary_weight": config.auxiliary_weight,
        "ce_avg": config.ce_avg,
        "student_batch": config.student_batch,
    }
