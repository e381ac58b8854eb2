"""Random numbers that are the same on every machine: raw PCG64 integers and exact arithmetic, no distribution code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 256


class Dice:
    """A stream of random numbers, fixed by its integer key."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))
        self._pool: list[float] = []

    def unit(self) -> float:
        """In [0, 1), a multiple of 2**-53."""
        if not self._pool:
            raw = np.asarray(self._bits.random_raw(_BLOCK), np.uint64)
            self._pool = ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def near(self, low: float, high: float) -> float:
        """In [low, high), denser towards ``low``: things close to the camera are worth more pixels."""
        return low + (high - low) * self.unit() * self.unit()

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def sign(self) -> int:
        return 1 if self.unit() < 0.5 else -1

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.unit() * len(items))]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """A key, drawn in proportion to its weight."""
        left = self.unit() * sum(weights.values())
        for item, weight in weights.items():
            left -= weight
            if left < 0:
                return item
        return item

    def bytes(self, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Independent uniform bytes."""
        count = int(np.prod(shape))
        raw = np.asarray(self._bits.random_raw((count + 7) // 8), np.uint64)
        return raw.astype("<u8").view(np.uint8)[:count].reshape(shape)
