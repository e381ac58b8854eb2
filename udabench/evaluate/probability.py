"""Class probabilities of whole images, averaged over scales and mirror images: what pseudo-labels are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.config import EvaluateConfig
from udabench.evaluate.inference import Predictor, infer
from udabench.method import Samples


def views_of(
    predictor: Predictor, samples: Samples, config: EvaluateConfig, scales: Sequence[float] = (1.0,)
) -> tuple[Tensor, ...]:
    """The logits of every view of the images, each N C h w: of each scale, and mirrored back where it is mirrored.

    Args:
        predictor: samples -> logits N C h w.
        config: ``mode``, ``window``, ``stride`` and ``flip`` of each scale.
        scales: factors on both sides of the image.
    """
    return tuple(logits for scale in scales for logits in infer(predictor, _scaled(samples, scale), config))


def mean_probability(views: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """The mean of the views' softmax, each after its logits were brought to ``size`` (CRST): N C H W."""
    mean = torch.zeros((*views[0].shape[:2], *size), device=views[0].device)
    for logits in views:
        mean += interpolate(logits.float(), tuple(size), mode="bilinear", align_corners=False).softmax(1)
    return mean.div_(len(views))


def _scaled(samples: Samples, scale: float) -> Samples:
    """The image alone, scaled; nothing else is asked of it."""
    height, width = samples.image.shape[-2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    image = interpolate(samples.image, size, mode="bilinear", align_corners=False, antialias=scale < 1)
    return samples._replace(image=image, label=None, valid=None, layers={}, context=None)
