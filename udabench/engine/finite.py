"""Losses and weights that are no numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from udabench.world import gather_values, highest

_Found = tuple[str, int, Mapping[str, float], tuple[str, ...]]


class NotFinite(Exception):
    """Something is NaN or infinite.

    Attributes:
        what: ``loss 'source'`` or ``parameter 'net.weight'``.
        iteration: of the run, 0-based: the first step where it was seen.
        values: the losses' values; where one is not finite, its first such value.
        samples: names of that step's images.
    """

    def __init__(self, what: str, iteration: int, values: Mapping[str, float], samples: tuple[str, ...]) -> None:
        super().__init__(what)
        self.what = what
        self.iteration = iteration
        self.values = values
        self.samples = samples

    def __reduce__(self) -> tuple[type[NotFinite], _Found]:
        # An exception is made anew from its message alone: it would not come back from another process.
        return type(self), (self.what, self.iteration, self.values, self.samples)


class Finiteness:
    """Finds the first loss that is no number without waiting for the device at each step."""

    def __init__(self) -> None:
        self._first: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}
        self._samples: dict[int, tuple[str, ...]] = {}

    def begin(self, iteration: int, samples: tuple[str, ...]) -> None:
        """A step (or its next micro-batch) over these samples begins."""
        self._samples[iteration] = (*self._samples.get(iteration, ()), *samples)

    def see(self, name: str, value: Tensor, iteration: int) -> None:
        """A loss of this step. Nothing is read from the device."""
        value = value.detach().double()
        first = self._first.get(name)
        if first is None:
            first = torch.full_like(value, -1)
        clean = first < 0
        self._first[name] = torch.where(clean & ~torch.isfinite(value), iteration, first)
        self._values[name] = torch.where(clean, value, self._values.get(name, value))

    def check(self) -> None:
        """Waits for the device. Raises NotFinite, on every rank, for the earliest loss since the last call that was not
        finite on any."""
        found = self._find()
        if highest(int(found is not None)):
            raise NotFinite(*min((one for one in gather_values(found) if one is not None), key=lambda one: one[1]))

    def _find(self) -> _Found | None:
        """The earliest on this rank, and forget all."""
        names, samples = list(self._first), self._samples
        if not names:
            return None
        firsts = torch.stack(list(self._first.values())).tolist()
        values = torch.stack(list(self._values.values())).tolist()
        self._first, self._values, self._samples = {}, {}, {}
        bad = [(int(first), name) for first, name in zip(firsts, names, strict=True) if first >= 0]
        if not bad:
            return None
        iteration, name = min(bad)
        return f"loss '{name}'", iteration, dict(zip(names, values, strict=True)), samples.get(iteration, ())


@torch.no_grad()
def check_weights(module: nn.Module, iteration: int) -> None:
    """Before a checkpoint: a gradient may have been infinite although its loss was not. Raises NotFinite."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        return
    fine = torch.stack([torch.isfinite(p).all() for p in trained.values()]).tolist()
    bad = [name for name, good in zip(trained, fine, strict=True) if not good]
    if bad:
        raise NotFinite(f"parameter '{bad[0]}'", iteration, {}, ())
