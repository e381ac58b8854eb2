"""Backbone + head: the network that most runs train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from udabench.errors import UsageError
from udabench.network import Backbone, BranchedHead, DecodeHead, EmbeddingHead, Head, Network, Normalization, Output

Norm = Literal["auto", "train", "frozen", "affine_frozen"]
MakeHead = Callable[[Sequence[int], Sequence[int]], DecodeHead]


class Normalize(nn.Module):
    """A :class:`Normalization` whose constants live on the network's device: no copy from the host in each step."""

    scale: Tensor
    shift: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.bgr = normalization.bgr
        self.mean_color = normalization.mean_color
        std = torch.tensor(normalization.std, dtype=torch.float64).view(1, 3, 1, 1)
        mean = torch.tensor(normalization.mean, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("scale", (normalization.scale / std).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if self.bgr:
            image = image.flip(1)
        return torch.addcmul(self.shift, image, self.scale)


class SegmentationNetwork(Network):
    """A backbone and a head, and if asked for a second head of the same kind on an earlier map.

    Args:
        backbone: the encoder, with its weights loaded (its ``normalization`` is a property of them).
        make_head: ``(channels, strides) -> head``.
        classes: number of outputs.
        norm: batch norms of the backbone. ``train``: learnt, statistics of the batch. ``frozen``: running statistics
            and affine values both fixed, also after ``.train()``. ``affine_frozen``: affine values fixed while the
            running statistics still move in ``train()`` (Caffe lineage). ``auto``: as the backbone's lineage has it.
        auxiliary: 0: none; k: a further head that sees the pyramid up to the k-th map before the last
            (AdaptSegNet: 1).
        auxiliary_weight: weight of that head's loss (AdaptSegNet: 0.1).
    """

    def __init__(
        self,
        backbone: Backbone,
        make_head: MakeHead,
        classes: int,
        *,
        norm: Norm = "auto",
        auxiliary: int = 0,
        auxiliary_weight: float = 0.1,
    ) -> None:
        super().__init__()
        levels = len(backbone.channels)
        if not 0 <= auxiliary < levels:
            raise UsageError(f"Option auxiliary is {auxiliary}; the pyramid has {levels} maps: use 0 to {levels - 1}.")
        self.classes = classes
        self.feature_channels = tuple(backbone.channels)
        self.normalize = Normalize(backbone.normalization)
        self.backbone = backbone
        self.head = make_head(backbone.channels, backbone.strides)
        self.embedding_channels = self.head.embedding_channels if isinstance(self.head, EmbeddingHead) else None
        self.output_stride = self.head.output_stride or backbone.strides[-1]
        self._until = levels - auxiliary
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary_head = (
            make_head(backbone.channels[: self._until], backbone.strides[: self._until]) if auxiliary else None
        )
        self.branch_count = self.head.branch_count if isinstance(self.head, BranchedHead) else 0
        self.norm: Norm = _choose_norm(backbone, norm)
        self._freeze_norms()

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        """One path for every domain, unless the backbone has layers of each one's own."""
        return self.decode(self.encode(image, domain))

    def segment_and_encode(self, image: Tensor, other: Tensor) -> tuple[Output, tuple[Tensor, ...]]:
        """One pass of the encoder."""
        features, count = self.encode(torch.cat([image, other])), len(image)
        return self.decode(tuple(level[:count] for level in features)), tuple(level[count:] for level in features)

    def decode(self, features: tuple[Tensor, ...]) -> Output:
        heads = self.head.auxiliary(features)
        if self.auxiliary_head is not None:
            logits = self.auxiliary_head(features[: self._until])
            heads = (*heads, Head(logits, weight=self.auxiliary_weight))
        if isinstance(self.head, EmbeddingHead):
            embedding = self.head.embed(features)
            return Output(self.head.classify(embedding), features, heads, embedding=embedding)
        if isinstance(self.head, BranchedHead):
            branches = self.head.branch_logits(features)
            return Output(reduce(torch.add, branches), features, heads, branches=branches)
        return Output(self.head(features), features, heads)

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        domains = (domain,) if self.backbone.by_domain else ()
        features: tuple[Tensor, ...] = self.backbone(self.normalize(image), *domains)
        return features

    def copy_source_layers(self) -> None:
        self.backbone.copy_source_layers()

    @property
    def mean_color(self) -> tuple[float, float, float]:
        return self.normalize.mean_color

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """``encoder`` and ``head``; ``_norm`` where "norm" is part of the parameter's NAME, as in the DAFormer code.

        So layer norms of a transformer are in ``encoder_norm``, while batch norms called ``bn`` (ResNet, decoders) are
        in ``encoder`` and ``head`` and do decay.
        """
        groups: dict[str, list[nn.Parameter]] = {role: [] for role in ("encoder", "encoder_norm", "head", "head_norm")}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                role = "encoder" if name.startswith("backbone.") else "head"
                groups[role + "_norm" * ("norm" in name)].append(parameter)
        return groups

    def train(self, mode: bool = True) -> SegmentationNetwork:
        super().train(mode)
        if self.norm == "frozen":
            for norm in batch_norms(self.backbone):
                norm.eval()
        return self

    def _freeze_norms(self) -> None:
        if self.norm in ("frozen", "affine_frozen"):
            for norm in batch_norms(self.backbone):
                norm.requires_grad_(False)
        self.train(self.training)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every batch norm of a module. Layer norms keep no statistics and are never frozen."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def _choose_norm(backbone: Backbone, norm: Norm) -> Norm:
    if norm not in get_args(Norm):
        raise UsageError(f"Option norm is '{norm}'; use one of {', '.join(get_args(Norm))}.")
    if norm == "auto":
        return backbone.default_norm
    if norm != "train" and not batch_norms(backbone):
        raise UsageError(f"Option norm is '{norm}', but {type(backbone).__name__} has no batch norms to freeze.")
    return norm
