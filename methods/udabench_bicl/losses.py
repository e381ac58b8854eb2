"""The terms of BiCL's loss (Eq 2, 3, 11), and what its distillation takes of a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from udabench.labels import IGNORE
from udabench.method import Samples
from udabench.network import Output
from udabench.parts.entropy import mean_entropy
from udabench.parts.grid import masked
from udabench.parts.losses import segmentation_loss, upsample
from udabench.parts.upsampled import most_probable
from udabench_bicl.config import BiCLConfig


def term_weights(config: BiCLConfig) -> dict[str, float]:
    """Lambda of each term of Eq 12."""
    return {
        "source": config.source_weight,
        "target": config.target_weight,
        "source_entropy": config.source_entropy_weight,
        "target_entropy": config.target_entropy_weight,
        "forward": config.fc_weight,
        "backward": config.bc_weight,
    }


def contrast_loss(config: BiCLConfig, cosine: Tensor, counts: Tensor, present: Tensor) -> Tensor:
    """Mean over pairs of the mean over pixels of ``-log softmax_c (cos(f, rho(c)) / tau)`` at the pixel's class.

    Under nearest upsampling all pixels of a cell have its cosines, so that the mean over pixels is one over cells,
    weighted by the pixels of each class in them. Only pixels whose class has a prototype take part; a pair without
    any adds 0.

    Args:
        cosine: N C P, of the P cells of each image to the prototypes of its partner.
        counts: N C P, pixels of each class in each cell.
        present: N C bool, classes that have a prototype.
    """
    known = present[:, :, None]
    without = torch.finfo(cosine.dtype).min if config.absent_in_denominator == "drop" else -1 / config.temperature
    logits = (cosine / config.temperature).masked_fill(~known, without)
    logs = logits.log_softmax(1).masked_fill(~known, 0)
    weights = counts * known
    return (-(weights * logs).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1)).mean()


def base_losses(
    config: BiCLConfig, outputs: Mapping[str, Output], source: Samples, target: Samples, label: Tensor
) -> dict[str, Tensor]:
    """The terms of Eq 11 that have a weight: cross entropies, and entropies in nats at the image's resolution."""

    def entropy(name: str, samples: Samples) -> Tensor:
        logits = upsample(outputs[name].logits.float(), samples.image.shape[-2:])
        return math.log(logits.shape[1]) * mean_entropy(logits, samples.valid)

    terms: dict[str, Callable[[], Tensor]] = {
        "source": lambda: segmentation_loss(outputs["source"], source.label),
        "target": lambda: segmentation_loss(outputs["target"], label),
        "source_entropy": lambda: entropy("source", source),
        "target_entropy": lambda: entropy("target", target),
    }
    weights = term_weights(config)
    return {name: term() for name, term in terms.items() if weights[name]}


def sure_labels(logits: Tensor, target: Samples, threshold: float) -> Tensor:
    """A teacher's most probable classes at the image's resolution, 255 below the threshold and on padding: N H W."""
    confidence, label = most_probable(logits, (target.image.shape[2], target.image.shape[3]))
    return masked(label.masked_fill(confidence < threshold, IGNORE), target)
