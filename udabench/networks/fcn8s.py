"""FCN-8s on VGG16 (Long et al. 2015), as BDL's code has it: the second network of BDL, FDA, SAM and LDR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.errors import UsageError
from udabench.network import Network, Output
from udabench.networks.layers import classifier
from udabench.networks.segmentation import Normalize
from udabench.networks.vgg import VGG16, Lineage
from udabench.networks.weights import NONE, random_report

POOL4_SCALE, POOL3_SCALE = 0.01, 0.0001
POOL4_OFFSET, POOL3_OFFSET, IMAGE_OFFSET = 5, 9, 31
"""Where a coarser map, upsampled, begins on pool4, on pool3, and where the image begins on the last one."""
_INSIDE = (12, 6, 0)
"""Cells of pool3, pool4 and fc7 that lie on the border above (left of) the image."""


class FCN8s(Network):
    """Scores of fc7, pool4 and pool3, summed while they are upsampled by fixed bilinear transposed convolutions.

    ``logits`` are at the image's size: what is supervised and evaluated is the network's own upsampling. ``coarse`` is
    the map before it, at 1/8 (138x74 of a 1024x512 image, with what the border adds), and :meth:`upscore` is the way
    from the one to the other. ``features`` are pool3, pool4 and fc7 without the border: ``ceil(side / stride)`` cells
    that lie on the image, each 3 pixels up and left of where a grid of so many cells would have it.

    All of it but the transposed convolutions is trained; they are no parameters. Biases are groups of their own, whose
    rate is twice that of weights (Caffe's recipe). BDL begins scores at 0, as it goes on from weights trained on
    source images; here they begin as DeepLab's do, so that the encoder learns from the first step on.

    Args:
        classes: number of outputs.
        weights: ``imagenet``, a file, or ``none``: the encoder's, see :class:`udabench.networks.vgg.VGG16`.
        lineage: ``torchvision`` or ``caffe``, likewise.
        width: channels of the first block, likewise.
        bias_rate: learning rate of biases over that of weights.
    """

    output_stride = 1

    def __init__(
        self,
        classes: int,
        weights: str = "imagenet",
        *,
        lineage: Lineage = "torchvision",
        width: int = 64,
        bias_rate: float = 2.0,
    ) -> None:
        super().__init__()
        if not isinstance(bias_rate, int | float) or bias_rate <= 0:
            raise UsageError(f"Option bias_rate is {bias_rate!r}; use a number > 0 (BDL: 2).")
        self.classes, self.bias_rate = classes, bias_rate
        self.backbone = VGG16(lineage=lineage, width=width)
        self.reports = (random_report(self.backbone) if weights == NONE else self.backbone.load_weights(weights),)
        self.normalize = Normalize(self.backbone.normalization)
        self.feature_channels = self.backbone.channels
        third, fourth, last = self.feature_channels
        self.drop7 = nn.Dropout2d()
        self.score_fr = classifier(last, classes)
        self.score_pool4 = classifier(fourth, classes)
        self.score_pool3 = classifier(third, classes)
        self.twofold, self.eightfold = BilinearTransposed(2), BilinearTransposed(8)

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        """One path for every domain."""
        size = image.shape[-2:]
        maps = self.backbone(self.normalize(image))
        coarse = self.score(*maps)
        return Output(self.upscore(coarse, size), _inside(maps, size), coarse=coarse)

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        return _inside(self.backbone(self.normalize(image)), image.shape[-2:])

    def score(self, pool3: Tensor, pool4: Tensor, fc7: Tensor) -> Tensor:
        """The encoder's maps, with their border -> ``coarse``, N C h w."""
        summed: Tensor = self.twofold(self.score_fr(self.drop7(fc7)))
        summed = summed + cut(self.score_pool4(POOL4_SCALE * pool4), POOL4_OFFSET, summed.shape[-2:])
        summed = self.twofold(summed)
        return summed + cut(self.score_pool3(POOL3_SCALE * pool3), POOL3_OFFSET, summed.shape[-2:])

    def upscore(self, coarse: Tensor, size: Sequence[int]) -> Tensor:
        return cut(self.eightfold(coarse), IMAGE_OFFSET, size).contiguous()

    @property
    def mean_color(self) -> tuple[float, float, float]:
        return self.normalize.mean_color

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """``encoder`` (VGG16, fc6 and fc7 included) and ``head`` (the three scores); ``_bias`` for their biases."""
        groups: dict[str, list[nn.Parameter]] = {role: [] for role in ("encoder", "encoder_bias", "head", "head_bias")}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                role = "encoder" if name.startswith("backbone.") else "head"
                groups[role + "_bias" * name.endswith(".bias")].append(parameter)
        return groups

    def rate_factors(self) -> Mapping[str, float]:
        return {"encoder_bias": self.bias_rate, "head_bias": self.bias_rate}


class BilinearTransposed(nn.Module):
    """Each channel through one fixed bilinear transposed convolution: N C h w -> N C f(h + 1) f(w + 1).

    Cell i comes to lie at ``f * i + f - 0.5``. Never below float32, whatever the autocast.
    """

    kernel: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("kernel", bilinear_kernel(2 * factor)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            kernel = self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)
            return F.conv_transpose2d(x, kernel, stride=self.factor, groups=x.shape[1])


def bilinear_kernel(size: int) -> Tensor:
    """The outer product of ``1 - |i - (size - 1) / 2| / (size / 2)`` with itself; ``size`` is even."""
    line = 1 - (torch.arange(size) - (size - 1) / 2).abs() / (size / 2)
    return torch.outer(line, line)


def cut(x: Tensor, offset: int, size: Sequence[int]) -> Tensor:
    """N C h w from row and column ``offset`` on, of ``size``."""
    height, width = size
    return x[:, :, offset : offset + height, offset : offset + width]


def _inside(maps: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
    """The maps' cells that lie on an image of ``size``."""
    cells = ([ceil(side / stride) for side in size] for stride in VGG16.strides)
    return tuple(cut(x, offset, shape) for x, offset, shape in zip(maps, _INSIDE, cells, strict=True))
