"""The perceptual loss: how far apart two images are in the features of a network that was trained on real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from udabench.errors import CheckpointError, UsageError, unknown
from udabench.network import Backbone, Normalization, WeightsReport
from udabench.networks.lite0 import Lite0
from udabench.networks.vgg19 import Vgg19
from udabench.networks.weights import NONE
from udabench.parts.adversarial import distance
from udabench.parts.frozen import Frozen

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""pix2pixHD's weights of VGG19's five maps, fine to coarse."""
NETWORKS: Mapping[str, Callable[[], Backbone]] = {"vgg19": Vgg19, "lite0": Lite0}
"""What features are taken from: VGG19 as in the papers, or a stated substitute."""


class Perceptual(Frozen):
    """Weighted mean absolute differences of a frozen encoder's maps (Johnson et al. 2016; LDR Eq 5, first term).

    Neither trained nor stored: ``report`` says which weights they are.

    Args:
        backbone: with its weights.
        report: what its loader said.
        shares: of each map, fine to coarse; of fewer maps than shares, the last ones.
        normalization: how RGB in [0, 1] reaches the encoder; None: as its weights want it. pix2pixHD's code gives VGG19
            its images in [-1, 1] as they are: :data:`udabench.networks.generator.SIGNED`.
    """

    def __init__(
        self,
        backbone: Backbone,
        report: WeightsReport,
        shares: Sequence[float] = SHARES,
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__(backbone)
        self.report = report
        self.shares = tuple(shares)[-len(backbone.channels) :]
        self.normalization = normalization or backbone.normalization

    def loss(self, image: Tensor, goal: Tensor) -> Tensor:
        """Scalar; the gradient goes into ``image`` alone. Both N 3 H W, RGB in [0, 1]."""
        fixed = self(self.normalization(goal))
        made = self.through(self.normalization(image))
        terms = [share * distance(a, b) for share, a, b in zip(self.shares, made, fixed, strict=True)]
        total: Tensor = sum(terms[1:], start=terms[0])
        return total


def perceptual(
    network: str = "vgg19", weights: str = "imagenet", normalization: Normalization | None = None
) -> Perceptual:
    """A perceptual loss with real weights. Never with random ones.

    Args:
        network: of :data:`NETWORKS`.
        weights: ``imagenet`` or a file with the published names.
        normalization: see :class:`Perceptual`.

    Raises:
        UsageError: an unknown network, or ``none`` as weights.
        CheckpointError: the weights cannot be had, or do not cover the network.
    """
    if network not in NETWORKS:
        raise unknown("perceptual network", network, NETWORKS)
    if weights == NONE:
        raise UsageError(f"The perceptual loss is asked for with a {network} of random weights. {_remedy(network)}")
    backbone = NETWORKS[network]()
    try:
        report = backbone.load_weights(weights)
    except CheckpointError as error:
        raise CheckpointError(f"The perceptual loss has no weights. {error} {_remedy(network)}") from error
    return Perceptual(backbone, report, normalization=normalization)


def _remedy(network: str) -> str:
    others = " or ".join(f"'{name}'" for name in NETWORKS if name != network)
    return f"Give it ImageNet weights or a file, take {others} as a stated substitute, or leave the term out."
