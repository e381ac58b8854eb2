"""The processes that train one run together. Alone (the usual case) every function is the identity.

A step's batch is split by rank: rank r holds the r-th of ``world_size()`` equal parts, in order. The engine averages
the ranks' gradients. So a loss that is a sum over the batch, divided by a count over the batch, reads
``local_sum / per_rank(local_count)``: the average over the ranks is then the value of the whole batch, and not a mean
of the ranks' means. What a method draws from ``rng`` is the same on every rank: draw for the whole batch, and keep
:func:`own` rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """This process among them, from 0."""
    return dist.get_rank() if _together() else 0


def total(tensor: Tensor) -> Tensor:
    """The sum over all ranks, detached; of any shape, the same on each rank."""
    summed = tensor.detach()
    if _together():
        summed = summed.clone()
        dist.all_reduce(summed)
    return summed


def per_rank(count: Tensor) -> Tensor:
    """A count over the whole batch (at least 1) as each rank's share: what a local sum is divided by."""
    return total(count).clamp(min=1) / world_size()


def gather(tensor: Tensor) -> Tensor:
    """The rows of all ranks in order, detached: n ... -> n * world_size() ...; every rank has as many rows."""
    rows = tensor.detach().contiguous()
    if not _together():
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)


def own(tensor: Tensor) -> Tensor:
    """This rank's rows of a tensor over the whole batch: n * world_size() ... -> n ..."""
    share = len(tensor) // world_size()
    return tensor[rank() * share : (rank() + 1) * share]


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
