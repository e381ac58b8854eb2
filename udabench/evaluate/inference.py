"""From images to logits: the whole image or a sliding window, optionally with the mirrored image beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.config import EvaluateConfig
from udabench.method import Samples
from udabench.size import Size, window_corners

Predictor = Callable[[Samples], Tensor]
"""Samples -> logits N C h w, before upsampling, at any stride."""

Corner = tuple[int, int]
"""Top and left of a window."""


def infer(predictor: Predictor, samples: Samples, config: EvaluateConfig) -> Tensor:
    """Logits of each view: V N C h w.

    V is 1, or 2 with ``config.flip``: the image, and its mirror image with the logits mirrored back. Views are averaged
    as probabilities at the label's size (as mmseg averages test-time augmentations), so they stay apart until then.
    ``whole`` returns the predictor's own grid, so that logits are resized once; ``slide`` returns the image's.
    """
    run = _slide if config.mode == "slide" else _whole
    views = [run(predictor, samples, config)]
    if config.flip:
        views.append(run(predictor, mirrored(samples), config).flip(-1))
    return torch.stack(views)


def _whole(predictor: Predictor, samples: Samples, config: EvaluateConfig) -> Tensor:
    return torch.cat([predictor(part).float() for part in _parts(samples, config.batch)])


def _slide(predictor: Predictor, samples: Samples, config: EvaluateConfig) -> Tensor:
    """Window logits, resized to the window, summed where they overlap and divided by their number (mmseg, HRDA)."""
    height, width = samples.image.shape[-2:]
    window = Size(min(config.window.height, height), min(config.window.width, width))
    corners = list(window_corners(Size(height, width), window, config.stride))
    covered = samples.image.new_zeros(height, width)
    for top, left in corners:
        covered[top : top + window.height, left : left + window.width] += 1
    sums = [_slide_one(predictor, one, corners, window, config).div_(covered) for one in _parts(samples, 1)]
    return sums[0] if len(sums) == 1 else torch.cat(sums)


def _slide_one(
    predictor: Predictor, samples: Samples, corners: list[Corner], window: Size, config: EvaluateConfig
) -> Tensor:
    total: Tensor | None = None
    for first in range(0, len(corners), config.batch):
        places = corners[first : first + config.batch]
        logits = predictor(cut_windows(samples, places, window)).float()
        for (top, left), part in zip(places, logits, strict=True):
            full = interpolate(part[None], tuple(window), mode="bilinear", align_corners=config.align_corners)
            if total is None:
                total = full.new_zeros(1, len(part), *samples.image.shape[-2:])
            total[..., top : top + window.height, left : left + window.width] += full
    assert total is not None
    return total


def cut_windows(samples: Samples, corners: list[Corner], window: Size) -> Samples:
    """Windows of one image as a batch; ``box`` says where each lies."""

    def cut(tensor: Tensor) -> Tensor:
        return torch.cat([tensor[..., y : y + window.height, x : x + window.width] for y, x in corners])

    count = len(corners)
    boxes = torch.tensor([[top, left, *window] for top, left in corners], device=samples.box.device)
    return samples._replace(
        image=cut(samples.image),
        label=None if samples.label is None else cut(samples.label),
        names=samples.names * count,
        valid=None if samples.valid is None else cut(samples.valid),
        box=boxes,
        flipped=samples.flipped.expand(count),
        layers={name: cut(layer) for name, layer in samples.layers.items()},
        context=None,
    )


def mirrored(samples: Samples) -> Samples:
    """The same samples, left and right exchanged."""
    return samples._replace(
        image=samples.image.flip(-1),
        label=None if samples.label is None else samples.label.flip(-1),
        valid=None if samples.valid is None else samples.valid.flip(-1),
        flipped=~samples.flipped,
        layers={name: layer.flip(-1) for name, layer in samples.layers.items()},
        context=None,
    )


def _parts(samples: Samples, size: int) -> Iterator[Samples]:
    """At most ``size`` samples at a time."""
    for first in range(0, len(samples.names), size):
        here = slice(first, first + size)
        yield samples._replace(
            image=samples.image[here],
            label=None if samples.label is None else samples.label[here],
            names=samples.names[here],
            valid=None if samples.valid is None else samples.valid[here],
            box=samples.box[here],
            flipped=samples.flipped[here],
            layers={name: layer[here] for name, layer in samples.layers.items()},
            context=None,
        )
