"""HRDA: a network around any network, which sees the context coarsely and a detail finely (Hoyer et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, floor
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from udabench.errors import UsageError
from udabench.network import DecodeHead, Head, Network, Output
from udabench.networks.deeplabv2 import DeepLabV2Head
from udabench.networks.layers import resize_like
from udabench.networks.segformer import SegFormerHead
from udabench.size import Size, window_corners
from udabench.world import gather

Attention = Literal["segformer", "deeplabv2"]
Box = tuple[int, int, int, int]
"""Top, left, height, width, as in :class:`udabench.network.Head`."""
_STEP = 8
"""Corners of the detail are multiples of this: an output stride of 4 on the context at half the resolution."""


class HRDA(Network):
    """One network on the whole crop at half the resolution (context) and on a window of the full one (detail).

    A further head attends to the scales: ``fused = up(a) * detail + up((1 - a) * context)``, where ``a`` is a sigmoid
    for each class on the context's grid, 0 outside the window, and ``up`` doubles the grid bilinearly (Eq 6 to 8).

    In training the window is drawn at random, one for the batch, from torch's global generator. In eval mode, and in
    every replica (an EMA teacher, whatever the mode of its norms), it slides by half its size and the logits are
    averaged: 9 windows of 512 in a crop of 1024.

    ``features`` and :meth:`encode` are the context's alone. The detail has a loss of its own. The context is
    supervised outside of the window; where the window is the whole crop it has a loss too, on what goes into the sum.

    Args:
        build_inner: gives the network inside.
        classes: number of outputs.
        window: size of the detail, ``WIDTHxHEIGHT``; None: half of each side of the image.
        detail_weight: weight of the detail's loss (lambda_d).
        attention: ``segformer`` (all maps), or ``deeplabv2`` (the last map; HRDA's ResNet rows).
        attention_width: channels of the ``segformer`` attention.
        attention_dilations: of the ``deeplabv2`` attention.
        windows_a_pass: sliding windows that go through the network together; 0: all. Fewer need less memory.
    """

    wraps = True

    def __init__(
        self,
        build_inner: Callable[[], Network],
        classes: int,
        *,
        window: Size | str | None = None,
        detail_weight: float = 0.1,
        attention: Attention = "segformer",
        attention_width: int = 256,
        attention_dilations: Sequence[int] | str = "deeplab",
        windows_a_pass: int = 0,
    ) -> None:
        super().__init__()
        _check(detail_weight, attention, windows_a_pass)
        self.inner = build_inner()
        if isinstance(self.inner, HRDA):
            raise UsageError("Network hrda goes around another network once: write hrda:<network>.")
        self.classes = classes
        self.output_stride = self.inner.output_stride
        self.feature_channels = self.inner.feature_channels
        self.window = _parse(window)
        self.detail_weight = detail_weight
        self.windows_a_pass = windows_a_pass
        options: dict[str, Any] = {"width": attention_width}
        kind: type[DecodeHead] = SegFormerHead
        if attention == "deeplabv2":
            kind, options = DeepLabV2Head, {"dilations": attention_dilations}
        # Its logits are brought to the grid of the inner ones; the maps' own strides do not matter.
        strides = [self.output_stride] * len(self.feature_channels)
        self.scale_attention = kind(self.feature_channels, strides, classes, **options)
        self.slides = False
        """Whether the detail slides in training mode too."""

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        context: Output = self.inner(halved(image), domain)
        attention = self.attend(context)
        if self.slides or not self.training:
            detail = self._slide(image, domain)
            return Output(fuse(context.logits, detail, attention)[0], context.features)
        size = Size(*image.shape[-2:])
        box = draw_window(size, self._window(size), self._step)
        detail = self.inner(cut(image, box), domain).logits
        inserted = paste([detail], [on_grid(box, self.output_stride)], self._grid(size))
        attention = inside(attention, on_grid(box, 2 * self.output_stride))
        fused, scaled = fuse(context.logits, inserted, attention)
        heads, weight = (*context.heads, Head(detail, box, self.detail_weight)), 1 - self.detail_weight
        if box[2:] == size:
            heads, weight = (*heads, Head(scaled, weight=self.detail_weight)), weight - self.detail_weight
        return Output(fused, context.features, heads, weight)

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        """The context's pyramid."""
        return self.inner.encode(halved(image), domain)

    def attend(self, context: Output) -> Tensor:
        """The detail's share, for each class, on the grid of the context's logits: N C h w in [0, 1]."""
        return resize_like(self.scale_attention(context.features), context.logits).sigmoid()

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """The inner ones; the attention is a ``head``."""
        groups = {role: list(parameters) for role, parameters in self.inner.parameter_groups().items()}
        attention = [parameter for parameter in self.scale_attention.parameters() if parameter.requires_grad]
        return {**groups, "head": groups.get("head", []) + attention}

    def rate_factors(self) -> Mapping[str, float]:
        return self.inner.rate_factors()

    def copy_source_layers(self) -> None:
        self.inner.copy_source_layers()

    @property
    def mean_color(self) -> tuple[float, float, float]:
        return self.inner.mean_color

    def replicate(self) -> HRDA:
        """A copy with equal values and no gradient, whose detail always slides."""
        copied = super().replicate()
        assert isinstance(copied, HRDA)
        copied.slides = True
        return copied

    def why_not(self, crop: Size) -> str | None:
        """Context, detail and their logits must share one grid, and the detail must fit into the crop."""
        stride, step = self.output_stride, self._step
        window = self.window or self._window(crop)
        if any(side % (2 * stride) for side in crop):
            return f"its context, at half the size, has logits at 1/{stride}: use sides that {2 * stride} divides"
        if any(side % stride for side in window):
            return f"its detail window {window} is no multiple of {stride}, the output stride; set window"
        if any(part > side for part, side in zip(window, crop, strict=True)):
            return f"its detail window {window} does not fit; set window to {self._half(crop)} or data.crop to {window}"
        if any(0 < side - part < step - 1 for part, side in zip(window, crop, strict=True)):
            return f"its detail window {window} cannot move by {step} pixels in it; set window to {self._half(crop)}"
        return self.inner.why_not(window) or self.inner.why_not(self._half(crop))

    @property
    def _step(self) -> int:
        return max(_STEP, self.output_stride)

    @staticmethod
    def _half(size: Size) -> Size:
        return Size(size.height // 2, size.width // 2)

    def _window(self, image: Size) -> Size:
        """The detail's size in an image; never larger than it."""
        window = self.window or self._half(image)
        return Size(min(window.height, image.height), min(window.width, image.width))

    def _grid(self, image: Size) -> Size:
        return Size(*(ceil(side / self.output_stride) for side in image))

    def _slide(self, image: Tensor, domain: str | None) -> Tensor:
        """The detail's logits over the whole image, averaged where windows overlap."""
        size, stride = Size(*image.shape[-2:]), self.output_stride
        window = self._window(size)
        half = Size(*(max(side // 2 // stride, 1) * stride for side in window))
        boxes: list[Box] = [(top, left, *window) for top, left in window_corners(size, window, half)]
        logits = [part for group in self._passes(boxes) for part in self._look(image, group, domain)]
        return paste(logits, [on_grid(box, stride, ceil) for box in boxes], self._grid(size))

    def _passes(self, boxes: Sequence[Box]) -> Iterator[Sequence[Box]]:
        count = self.windows_a_pass or len(boxes)
        return (boxes[first : first + count] for first in range(0, len(boxes), count))

    def _look(self, image: Tensor, boxes: Sequence[Box], domain: str | None) -> Sequence[Tensor]:
        """The logits of some windows, which go through the network together."""
        logits: Tensor = self.inner(torch.cat([cut(image, box) for box in boxes]), domain).logits
        return logits.chunk(len(boxes))


def halved(image: Tensor) -> Tensor:
    """Half the resolution, bilinear: N C H W -> N C H/2 W/2."""
    return interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)


def draw_window(image: Size, window: Size, step: int) -> Box:
    """A window at a random corner, a multiple of ``step``; the same on every rank.

    There are ``(margin + 1) // step`` places in each direction, so that the last possible one is never reached (504 at
    most for a window of 512 in 1024), as in HRDA's code.
    """
    places = [max(1, (whole - part + 1) // step) for whole, part in zip(image, window, strict=True)]
    corner = torch.stack([torch.randint(count, ()) for count in places])
    # Between processors: no rank waits for its GPU.
    top, left = (step * place for place in gather(corner[None])[0].tolist())
    return (top, left, *window)


def cut(image: Tensor, box: Box) -> Tensor:
    """N C H W -> N C h w."""
    top, left, height, width = box
    return image[:, :, top : top + height, left : left + width]


def on_grid(box: Box, stride: int, whole: Callable[[float], int] = floor) -> Box:
    """The cells of a box on a grid. Exact where the box lies on it; else its edges are rounded by ``whole`` (HRDA's
    code rounds down)."""
    top, left, height, width = box
    bottom, right = whole((top + height) / stride), whole((left + width) / stride)
    top, left = whole(top / stride), whole(left / stride)
    return (top, left, bottom - top, right - left)


def inside(attention: Tensor, box: Box) -> Tensor:
    """The attention in a box of cells, exactly 0 outside of it."""
    mask = attention.new_zeros(attention.shape[-2:])
    cut(mask[None, None], box).fill_(1)
    return attention * mask


def paste(parts: Sequence[Tensor], boxes: Sequence[Box], size: Size) -> Tensor:
    """Maps N C h w laid into one of ``size``, averaged where they overlap; 0 where there is none."""
    first = parts[0]
    total = first.new_zeros(*first.shape[:2], *size, dtype=torch.promote_types(first.dtype, torch.float32))
    count = total.new_zeros(1, 1, *size)
    for part, box in zip(parts, boxes, strict=True):
        place = cut(total, box)
        # Some networks round their grid up (a Caffe ResNet gives 65 cells for 512 pixels).
        place += resize_like(part, place)
        cut(count, box).add_(1)
    return total / count.clamp(min=1)


def fuse(context: Tensor, detail: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Both scales on the detail's grid, and the context's part of it on its own.

    Args:
        context, attention: N C h w.
        detail: N C 2h 2w.
    """
    scaled = (1 - attention) * context
    return resize_like(attention, detail) * detail + resize_like(scaled, detail), scaled


def _parse(window: Size | str | None) -> Size | None:
    try:
        return None if window is None else Size.parse(window)
    except ValueError as error:
        raise UsageError(f"Option window of network hrda: {error}.") from error


def _check(detail_weight: float, attention: str, windows_a_pass: int) -> None:
    if not 0 <= detail_weight < 0.5:
        raise UsageError(f"Option detail_weight of network hrda is {detail_weight}; use 0 <= detail_weight < 0.5.")
    if attention not in get_args(Attention):
        raise UsageError(f"Option attention of network hrda is '{attention}'; use {' or '.join(get_args(Attention))}.")
    if windows_a_pass < 0:
        raise UsageError(f"Option windows_a_pass of network hrda is {windows_a_pass}; use 0 (all) or more.")
