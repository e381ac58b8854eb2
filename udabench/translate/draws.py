"""Random numbers for the images of a batch, the same however many processes share the batch."""

from __future__ import annotations

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.world import own, world_size


def draw_rows(rng: Rng, images: int, *shape: int) -> Tensor:
    """A row of uniform numbers in [0, 1) for each of this process's images: N ``*shape``, on the CPU.

    They are drawn for the whole batch, so that every process leaves ``rng`` in the same state.
    """
    return own(torch.rand(images * world_size(), *shape, generator=rng))


def noise_like(rng: Rng, maps: Tensor) -> Tensor:
    """Standard normal noise for each of this process's images, in the form, type and place of ``maps``: N ....

    ``rng`` draws a seed an image, and the noise is made where the maps are: on the CPU it would take longer than a
    step on a GPU. So the numbers depend on the kind of device, and on how many processes there are they do not.
    """
    seeds = own(torch.randint(2**62, (len(maps) * world_size(),), generator=rng)).tolist()
    makers = (torch.Generator(maps.device).manual_seed(seed) for seed in seeds)
    rows = [torch.randn(maps.shape[1:], generator=maker, device=maps.device) for maker in makers]
    return torch.stack(rows).to(maps.dtype)


def partners(images: int, others: int, device: torch.device) -> Tensor:
    """Which of the others each image goes with: image i with the i-th, or spread over them where they are not as many.

    Of equal parts of a batch, each pairs as the whole does.
    """
    return torch.arange(images, device=device) * others // images


def between(uniform: Tensor, low: float, high: float) -> Tensor:
    """Numbers in [0, 1) stretched to ``low`` to ``high``."""
    return low + (high - low) * uniform


def as_factor(values: Tensor, like: Tensor) -> Tensor:
    """One number an image, ready to multiply images with: N -> N 1 1 1 in the type and place of ``like``."""
    return values.to(like).view(-1, 1, 1, 1)
