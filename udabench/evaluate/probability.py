"""Class probabilities of whole images, averaged over scales and mirror images: what pseudo-labels are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.config import EvaluateConfig
from udabench.evaluate.inference import Predictor, infer
from udabench.method import Samples


def mean_probability(
    predictor: Predictor, samples: Samples, config: EvaluateConfig, scales: Sequence[float] = (1.0,)
) -> Tensor:
    """The mean of the softmax of every view: N C H W at the image's size.

    Logits are brought to the image's size before the softmax, whatever the scale of the view (CRST).

    Args:
        predictor: samples -> logits N C h w.
        config: ``mode``, ``window``, ``stride``, ``flip`` and ``align_corners`` of each view.
        scales: factors on both sides of the image.
    """
    size = samples.image.shape[-2:]
    views = [
        interpolate(logits, size, mode="bilinear", align_corners=config.align_corners).softmax(1)
        for scale in scales
        for logits in infer(predictor, _scaled(samples, scale), config)
    ]
    return torch.stack(views).mean(0)


def _scaled(samples: Samples, scale: float) -> Samples:
    """The image alone, scaled; nothing else is asked of it."""
    height, width = samples.image.shape[-2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    image = interpolate(samples.image, size, mode="bilinear", align_corners=False, antialias=scale < 1)
    return samples._replace(image=image, label=None, valid=None, layers={}, context=None)
