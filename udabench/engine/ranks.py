"""What the ranks of a run do together: gradients are averaged, running statistics too, notes are put together.

After each step the method's whole state is the same on every rank: parameters, because gradients are averaged before
the optimisers; running statistics of norms, because they are averaged too (the mean is then that of the whole batch,
the variance the mean of the ranks'); everything else, because a method reduces what it takes over the batch
(:mod:`udabench.world`). So rank 0 can write a checkpoint at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from udabench.world import gather_values, total_, world_size

Value = TypeVar("Value")


class Mean(NamedTuple):
    """A mean in the making."""

    total: float
    values: int = 1

    def add(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.values + other.values)

    def __float__(self) -> float:
        return self.total / self.values


def fed_anywhere(flags: Sequence[bool]) -> list[bool]:
    """Each flag, where it is set on any rank. It goes by the processors, and waits for no GPU."""
    if world_size() == 1:
        return list(flags)
    return [bool(count) for count in total_(torch.tensor(flags, dtype=torch.int32)).tolist()]


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give each rank the mean of the ranks' gradients; a rank without one counts as zeros.

    A parameter that has no gradient on any rank keeps none: an optimiser passes over it, as in one process.
    """
    if world_size() == 1:
        return
    reached = fed_anywhere([p.grad is not None for p in parameters])
    fed = [p for p, there in zip(parameters, reached, strict=True) if there]
    for p in fed:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    _average([p.grad for p in fed if p.grad is not None])


@torch.no_grad()
def average_running(module: nn.Module) -> None:
    """Give each rank the mean of the ranks' running statistics, of norms that have just used a batch's."""
    if world_size() == 1:
        return
    norms = [m for m in module.modules() if isinstance(m, _NormBase) and not isinstance(m, nn.SyncBatchNorm)]
    moving = [m for m in norms if m.training and m.track_running_stats]
    _average([value for m in moving for value in (m.running_mean, m.running_var) if value is not None])


def merged(mine: Mapping[str, Value], add: Callable[[Value, Value], Value]) -> dict[str, Value]:
    """All ranks' values by name, those of one name added up."""
    joined: dict[str, Value] = {}
    for values in gather_values(dict(mine)):
        for name, value in values.items():
            joined[name] = add(joined[name], value) if name in joined else value
    return joined


def _average(tensors: Sequence[Tensor]) -> None:
    """In place, each kind of tensor in one message."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for same in kinds.values():
        mean = total_(torch.cat([tensor.flatten() for tensor in same])).div_(world_size())
        parts = torch.split(mean, [tensor.numel() for tensor in same])
        torch._foreach_copy_(same, [part.view(tensor.shape) for part, tensor in zip(parts, same, strict=True)])
