"""The self-attention modules of a network's layers: what they are trained on, and the loss that follows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.network import Network, Output
from udabench.parts.attention import SelfAttention
from udabench.parts.self_attention_loss import self_attention_loss
from udabench_sam.config import AttentionConfig


class Attentions(nn.Module):
    """A module for each layer that the loss acts on: ``prediction`` (Z, before upsampling), ``features`` (Tab A.5).

    Args:
        network: whose layers they are; it is not kept.
        config: which, and how.

    Raises:
        UsageError: the network cannot go on from changed features.
    """

    def __init__(self, network: Network, config: AttentionConfig) -> None:
        super().__init__()
        if "features" in config.layers and type(network).decode is Network.decode:
            raise UsageError(
                f"sa_on={config.sa_on} trains its module through the network's head, but {type(network).__name__} has "
                "none that takes features. Use sa_on=prediction, or a network <backbone>-<head>."
            )
        self.config = config
        width = config.width if config.module == "conv" else None
        channels = {"prediction": network.classes, "features": network.feature_channels[-1]}
        self.layers = nn.ModuleDict(
            {layer: SelfAttention(channels[layer], width, config.kernel) for layer in config.layers}
        )

    def attended(self, network: Network, output: Output, size: Sequence[int]) -> Iterator[Output]:
        """What the modules are trained by: the output with Z + Z' in Z's place, then that of the attended features.

        Without ``skip`` Z' and F' alone. Attended features go through the network's head once more.

        Args:
            network: whose output it is.
            output: with its graph.
            size: height and width of the image.
        """
        for layer, module in self.layers.items():
            changed = module(_map(output, layer), skip=self.config.skip)
            if layer == "features":
                yield network.decode((*output.features[:-1], changed))
            else:
                yield output._replace(logits=network.upscore(changed, size), coarse=None)

    def loss(self, output: Output) -> Tensor:
        """Eq 8 or 9, summed over the layers; the modules are frozen and the attended maps detached."""
        return torch.stack([self._loss(_map(output, layer), layer) for layer in self.layers]).sum()

    def _loss(self, own: Tensor, layer: str) -> Tensor:
        config = self.config
        with torch.no_grad():
            attended = self.layers[layer](own, skip=config.sa_target == "skip")
        return self_attention_loss(own, attended, config.sa_loss, config.sa_space, config.sa_reduction)


def _map(output: Output, layer: str) -> Tensor:
    return output.features[-1] if layer == "features" else output.score_map
