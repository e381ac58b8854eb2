"""Model selection without labels: what an image's predictions alone say of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Rule = Literal["entropy", "snd"]
"""``entropy``: the lowest mean entropy. ``snd``: the highest soft neighbourhood density."""
RULES: tuple[Rule, ...] = get_args(Rule)
SAMPLED = 100
"""Positions of an image among which neighbours are looked for (the authors' code for segmentation)."""
TEMPERATURE = 0.05
"""Of the similarities (Saito et al., 2021, section 3.2)."""


def criteria(logits: Tensor) -> dict[Rule, float]:
    """What each rule looks at, of one image; over a set of images, the mean.

    Positions are those of the logits' own grid; the same ones are sampled of every image and at every checkpoint.

    Args:
        logits: V C h w, V views of the image; their probabilities are averaged.
    """
    vectors = logits.float().softmax(1).mean(0).flatten(1).T
    density = neighbourhood_density(vectors[_sampled(len(vectors)).to(vectors.device)].double())
    entropy, snd = torch.stack([normalised_entropy(vectors).mean(dtype=torch.float64), density]).tolist()
    return {"entropy": entropy, "snd": snd}


def normalised_entropy(vectors: Tensor) -> Tensor:
    """Shannon entropy over its largest value, ln C: P C probabilities -> P in [0, 1]."""
    entropy: Tensor = torch.special.entr(vectors).sum(1) / math.log(vectors.shape[1])
    return entropy


def neighbourhood_density(vectors: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Soft neighbourhood density: P C probabilities -> a scalar in 0 to ln(P - 1), in nats.

    Each vector's cosine similarities to all others become a distribution over them (softmax at ``temperature``). Its
    entropy is high where a vector has many near neighbours, as in dense clusters; this is the mean over the vectors
    (Saito et al., "Tune it the Right Way", 2021, Eq 2 and 3). 0 for a single vector.
    """
    if len(vectors) < 2:
        return vectors.new_zeros(())
    unit = F.normalize(vectors, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, -math.inf)
    density: Tensor = torch.special.entr(similarity.softmax(1)).sum(1).mean()
    return density


def choose(rule: Rule, candidates: Mapping[int, Mapping[Rule, float]]) -> int:
    """The iteration that a rule selects; of equals the first.

    Args:
        candidates: iteration -> :func:`criteria`, averaged over the images.
    """
    sign = 1 if rule == "entropy" else -1
    return min(sorted(candidates), key=lambda iteration: sign * candidates[iteration][rule])


def _sampled(positions: int) -> Tensor:
    """At most :data:`SAMPLED` of so many positions, always the same ones."""
    return torch.randperm(positions, generator=torch.Generator().manual_seed(0))[:SAMPLED]
