"""The processes that train one run together. Alone (the usual case) every function is the identity.

A step's batch is split by rank: rank r holds the r-th of ``world_size()`` equal parts, in order. The engine averages
the ranks' gradients. So a loss that is a sum over the batch, divided by a count over the batch, reads
``local_sum / per_rank(local_count)``: the average over the ranks is then the value of the whole batch, and not a mean
of the ranks' means. What a method draws from ``rng`` is the same on every rank: draw for the whole batch, and keep
:func:`own` rows.

Every rank must call these functions equally often and in the same order: a call that one of them leaves out is waited
for by all others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from udabench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


class PeerLost(UserError):
    """Another process of the run is gone."""


def world_size() -> int:
    """Number of processes that train together."""
    dist = _joined()
    return int(dist.get_world_size()) if dist else 1


def rank() -> int:
    """This process among them, from 0."""
    dist = _joined()
    return int(dist.get_rank()) if dist else 0


def leads() -> bool:
    """Whether this process writes what the run leaves behind: rank 0."""
    return rank() == 0


def local_rank() -> int:
    """This process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _joined() else 0


def local_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if _joined() else 1


def total(tensor: Tensor) -> Tensor:
    """The sum over all ranks, detached; of any shape, the same on each rank."""
    summed = tensor.detach()
    return total_(summed.clone().contiguous()) if _joined() else summed


def total_(tensor: Tensor) -> Tensor:
    """:func:`total` in place, of a contiguous tensor."""
    if dist := _joined():
        with _peers():
            dist.all_reduce(tensor)
    return tensor


def per_rank(count: Tensor) -> Tensor:
    """A count over the whole batch (at least 1) as each rank's share: what a local sum is divided by."""
    return total(count).clamp(min=1) / world_size()


def gather(tensor: Tensor) -> Tensor:
    """The rows of all ranks in order, detached: n ... -> n * world_size() ...; every rank has as many rows."""
    rows = tensor.detach().contiguous()
    dist = _joined()
    if dist is None:
        return rows
    whole = rows.new_empty((world_size(), *rows.shape))
    with _peers():
        dist.all_gather(list(whole), rows)
    return whole.flatten(0, 1)


def own(tensor: Tensor) -> Tensor:
    """This rank's rows of a tensor over the whole batch: n * world_size() ... -> n ..."""
    share = len(tensor) // world_size()
    return tensor[rank() * share : (rank() + 1) * share]


def gather_values(value: Value) -> list[Value]:
    """What each rank has, in order: anything that can be pickled."""
    dist = _joined()
    if dist is None:
        return [value]
    values: list[Value | None] = [None] * world_size()
    with _peers():
        dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def highest(number: int) -> int:
    """The largest of the ranks' numbers. It goes by the processors, and waits for no GPU."""
    dist = _joined()
    if dist is None:
        return number
    import torch

    found = torch.tensor(number)
    with _peers():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def meet() -> None:
    """Returns when every rank has come here."""
    highest(0)


@contextmanager
def in_turn() -> Iterator[None]:
    """One process of each machine goes through the block first: the others find what it downloaded or counted."""
    first = local_rank() == 0
    if not first:
        meet()
    yield
    if first:
        meet()


def spread(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if dist := _joined():
        with _peers():
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), 0)


@contextmanager
def _peers() -> Iterator[None]:
    """Says in plain words that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(
            f"Process {rank()} of {world_size()} lost another one: it was killed, or failed without a word "
            "(out of memory?). Go on from the last checkpoint: torchrun ... -m udabench resume RUN."
        ) from error


def _joined() -> Any:
    """``torch.distributed`` where processes train together, else None: who only reads records need not import torch."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None
