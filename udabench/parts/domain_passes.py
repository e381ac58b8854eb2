"""Source and target through one network: a forward pass for each, or one for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from udabench.method import Loss
from udabench.network import Network, Output
from udabench.parts.losses import split

Passes = Literal["separate", "all"]
Objective = Callable[[str, Output], tuple[Tensor, Mapping[str, Tensor]]]
"""Name of the images, what the network returned for them -> their loss, and its summands for the log."""


def domain_losses(
    network: Network, images: Mapping[str, Tensor], objective: Objective, passes: Passes
) -> Iterator[Loss]:
    """The losses of a step.

    Args:
        network: the one that learns.
        images: name -> N 3 H W; of one H W for ``all``.
        objective: see :data:`Objective`.
        passes: ``separate``: each graph is freed before the next is built, and batch norms use each one's own
            statistics; ``all``: one pass, whose batch norms see all images together.

    Yields:
        One Loss for each name, or one for all, called ``source+target``.
    """
    if passes == "separate":
        for name, image in images.items():
            yield _loss({name: network(image)}, objective)
        return
    yield _loss(split(network(torch.cat(list(images.values()))), images), objective)


def _loss(outputs: Mapping[str, Output], objective: Objective) -> Loss:
    found = [objective(name, output) for name, output in outputs.items()]
    parts = {name: value.detach() for _, summands in found for name, value in summands.items()}
    return Loss("+".join(outputs), torch.stack([value for value, _ in found]).sum(), parts=parts, outputs=outputs)
