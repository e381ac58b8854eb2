"""The network contract: encoder (backbone) -> feature pyramid -> head -> logits before upsampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.size import Size


class Head(NamedTuple):
    """A further set of logits beside the main ones.

    Attributes:
        logits: N C h w, before upsampling.
        box: ``(top, left, height, width)`` of the image region that they describe, in input pixels; None: all of it.
        weight: weight of this head's loss.
    """

    logits: Tensor
    box: tuple[int, int, int, int] | None = None
    weight: float = 1.0


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: N C h w, before upsampling to the label.
        features: the encoder's pyramid, fine to coarse, each N C_i h_i w_i; ``features[-1]`` is the last map.
        heads: auxiliary head, HRDA's detail crop, domain branches.
        weight: weight of the main logits' loss (HRDA: 1 - lambda_d).
        coarse: where a network upsamples by itself (FCN-8s), the logits before that, on a grid of its own; see
            :meth:`Network.upscore`. None: ``logits`` are that map.
        embedding: the map that a 1x1 classifier made the logits of, where the head has one (:class:`EmbeddingHead`).
        branches: what the logits are the sum of, N C h w each, where the head has branches (:class:`BranchedHead`).
    """

    logits: Tensor
    features: tuple[Tensor, ...]
    heads: tuple[Head, ...] = ()
    weight: float = 1.0
    coarse: Tensor | None = None
    embedding: Tensor | None = None
    branches: tuple[Tensor, ...] = ()

    @property
    def score_map(self) -> Tensor:
        """The logits before any upsampling (SAM's Z): ``network.upscore(output.score_map, size)`` are ``logits``."""
        return self.logits if self.coarse is None else self.coarse


@dataclass(frozen=True)
class Normalization:
    """How RGB in [0, 1] becomes what the weights were trained on. A property of the weights, not of the method.

    ``input = (scale * rgb - mean) / std``, channels reversed to BGR first where ``bgr``.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0
    bgr: bool = False

    @property
    def mean_color(self) -> tuple[float, float, float]:
        """The RGB in [0, 1] that becomes 0: ``mean / scale``, in the order of RGB."""
        red, green, blue = (value / self.scale for value in self.mean)
        return (blue, green, red) if self.bgr else (red, green, blue)

    def __call__(self, image: Tensor) -> Tensor:
        """N 3 H W in [0, 1] -> N 3 H W as the weights expect it."""
        if self.bgr:
            image = image.flip(1)
        mean = torch.tensor(self.mean, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
        return (image * self.scale - mean) / std


TORCH = Normalization("torch", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = Normalization("caffe", (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0), scale=255.0, bgr=True)
UNIT = Normalization("unit", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
TF = Normalization("tf", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0), scale=255.0)


@dataclass(frozen=True)
class WeightsReport:
    """What a loader found: coverage is the share of the network's own parameters that the file gave values to."""

    source: str
    matched: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    digest: str = ""

    @property
    def coverage(self) -> float:
        total = self.matched + len(self.missing)
        return self.matched / total if total else 1.0


class Backbone(nn.Module, ABC):
    """An encoder. Takes a normalised image N 3 H W, returns the feature pyramid, fine to coarse.

    Constructed as ``Backbone(argument, **options)``; ``argument`` is what follows the colon of ``timm:resnet50``.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    normalization: Normalization = TORCH
    default_head: ClassVar[str | None] = None
    """The head of a network that is named by this backbone alone (``lite0``)."""
    default_norm: Literal["train", "frozen", "affine_frozen"] = "train"
    """How its norms are treated under ``norm: auto``: ``train``, ``frozen`` or ``affine_frozen``."""
    by_domain: bool = False
    """Whether it has layers of each domain's own; then ``forward(image, domain)``, where None is the source."""

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, ...]: ...

    @abstractmethod
    def load_weights(self, weights: str) -> WeightsReport:
        """Load ``imagenet``, a published name, or a local file; sets ``normalization``. Raises CheckpointError."""

    def weights_path(self, weights: str) -> Path | None:
        """The local file that ``weights`` would be read from, whether it is there or not; None: from a package."""
        return None

    def copy_source_layers(self) -> None:
        """Layers that another domain has for itself take the values of the source's."""


class DecodeHead(nn.Module, ABC):
    """A head: pyramid -> logits before upsampling.

    Constructed as ``DecodeHead(channels, strides, classes, **options)``.
    """

    output_stride: int | None = None
    """Input pixels per logit; None: the last map's."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Tensor: ...

    def auxiliary(self, features: Sequence[Tensor]) -> tuple[Head, ...]:
        """Further heads, if any."""
        return ()


class EmbeddingHead(DecodeHead):
    """A head in two parts: pyramid -> a map of features, of which a 1x1 classifier makes logits (ProDA)."""

    embedding_channels: int
    """D."""

    @abstractmethod
    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """N D h w, on the logits' grid."""

    @abstractmethod
    def classify(self, embedding: Tensor) -> Tensor:
        """N C h w."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.classify(self.embed(features))


class BranchedHead(DecodeHead):
    """A head whose logits are the sum of several branches' (DeepLabV2)."""

    branch_count: int

    @abstractmethod
    def branch_logits(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """N C h w each, on the logits' grid."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return reduce(torch.add, self.branch_logits(features))


class Network(nn.Module, ABC):
    """What a method trains.

    ``forward(image, domain=None)`` takes RGB in [0, 1], N 3 H W, and normalises by itself.

    Attributes:
        classes: number of outputs.
        output_stride: input pixels per logit.
        feature_channels: channels of each map of the pyramid.
        embedding_channels: channels of ``Output.embedding``; None where there is none.
        branch_count: of ``Output.branches``.
        reports: what the loader said of the initial weights.
    """

    wraps: ClassVar[bool] = False
    """Whether it is a network around a network: named ``<wrapper>:<inner>``, built from what builds the inner one."""
    classes: int
    output_stride: int
    feature_channels: tuple[int, ...]
    embedding_channels: int | None = None
    branch_count: int = 0
    reports: tuple[WeightsReport, ...] = ()

    @abstractmethod
    def forward(self, image: Tensor, domain: str | None = None) -> Output: ...

    @abstractmethod
    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        """The feature pyramid alone (no head): feature distance, projectors on translated images."""

    def decode(self, features: tuple[Tensor, ...]) -> Output:
        """What ``forward`` makes of a pyramid as :meth:`encode` gives it, perhaps changed in between.

        Raises UsageError where the network is no encoder with a head behind it; it then does not override this.
        """
        raise UsageError(f"{type(self).__name__} has no head that takes features; use a <backbone>-<head>.")

    def segment_and_encode(self, image: Tensor, other: Tensor) -> tuple[Output, tuple[Tensor, ...]]:
        """All of some images, and the pyramid alone of others. A network may run its encoder once over both; then
        batch norms that are not in eval mode see them together."""
        return self(image), self.encode(other)

    @abstractmethod
    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Trainable parameters by role: ``encoder``, ``head``; ``encoder_norm``, ``head_norm`` for those whose
        weight decay may be switched off; further ones that begin so. Every trainable parameter in exactly one."""

    def rate_factors(self) -> Mapping[str, float]:
        """Role of :meth:`parameter_groups` -> factor on its learning rate, on top of the configured ones. 1 where it
        is not named."""
        return {}

    def upscore(self, coarse: Tensor, size: Sequence[int]) -> Tensor:
        """The network's own upsampling: a map on the grid of ``Output.score_map`` -> one on that of ``Output.logits``.

        Args:
            coarse: N C h w; any number of channels.
            size: height and width of the network's input.
        """
        return coarse

    def why_not(self, crop: Size) -> str | None:
        """A reason why crops of this size cannot be trained on, or None. Asked before a run starts."""
        return None

    def copy_source_layers(self) -> None:
        """Layers that another domain has for itself take the values of the source's."""

    @property
    def mean_color(self) -> tuple[float, float, float]:
        """The RGB in [0, 1] that normalises to 0: what a masked patch is filled with. 0.5 where it is not known."""
        return (0.5, 0.5, 0.5)

    def replicate(self) -> Network:
        """A copy with equal values and no gradient: an EMA teacher's start."""
        import copy

        copied = copy.deepcopy(self)
        copied.requires_grad_(False)
        return copied


Options = Mapping[str, Any]
