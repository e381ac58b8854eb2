"""A teacher that follows a student: exponential moving average of the parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Generic, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from udabench.network import Network

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Norms = Literal["running", "batch", "train"]


def ema_factor(iteration: int, alpha: float) -> float:
    """Share of the old value at 0-based ``iteration``: ``min(1 - 1 / (it + 1), alpha)``; the first step copies."""
    return min(1 - 1 / (iteration + 1), alpha)


class Ema(nn.Module, Generic[ModuleT]):
    """A replica of a module that follows it.

    Args:
        module: what is replicated, projectors included; the replica needs no gradient.
        alpha: momentum.
        copy_buffers: take over running statistics at each update; False: they stay the replica's own, as in DACS and
            DAFormer.
        norms: ``running``: always in eval mode; ``batch``: in training, batch norms use (and update) the statistics
            of the batch, while dropout and drop path stay off, as in DAFormer; ``train``: those are on too, as in
            DACS. Norms that the network itself keeps frozen stay so.
        ramp: the momentum begins at 0 (:func:`ema_factor`); False: it is ``alpha`` from the first update.
    """

    module: ModuleT

    def __init__(
        self,
        module: ModuleT,
        alpha: float = 0.999,
        copy_buffers: bool = True,
        norms: Norms = "running",
        ramp: bool = True,
    ) -> None:
        super().__init__()
        copied = cast(ModuleT, module.replicate()) if isinstance(module, Network) else copy.deepcopy(module)
        self.module = copied.requires_grad_(False)
        self.alpha = alpha
        self.copy_buffers = copy_buffers
        self.norms = norms
        self.ramp = ramp
        self.train(self.training)

    def train(self, mode: bool = True) -> Ema[ModuleT]:
        super().train(False)
        if mode and self.norms != "running":
            # By the network's own rules, and then back: as a whole it is evaluated.
            self.module.train()
            for part in self.module.modules():
                part.training = part.training and self._trains(part)
        return self

    def _trains(self, part: nn.Module) -> bool:
        return isinstance(part, _BatchNorm) or (self.norms == "train" and next(part.children(), None) is None)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, module: nn.Module, iteration: int) -> None:
        """Move towards ``module``, whose tensors come in the same order as the replica's."""
        mine, theirs = _floats(self.module.parameters()), _floats(module.parameters())
        if mine:
            kept = ema_factor(iteration, self.alpha) if self.ramp else self.alpha
            torch._foreach_lerp_(mine, theirs, 1 - kept)
        if self.copy_buffers:
            for own, other in zip(self.module.buffers(), module.buffers(), strict=True):
                own.copy_(other)


def _floats(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
