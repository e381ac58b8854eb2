"""Random numbers as a function of their place: the same in any process, in any order, after any restart."""

from __future__ import annotations

from hashlib import sha256

import numpy as np


def seed_of(*place: object) -> int:
    """128 bits that depend on every part of ``place`` and on nothing else (not on Python's salted ``hash``)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in place)
    return int.from_bytes(sha256(text.encode()).digest()[:16], "little")


def rng_at(*place: object) -> np.random.Generator:
    """A generator of its own for this place, such as ``(seed, stage, iteration, slot, domain)``."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed_of(*place))))


def permute(position: int, length: int, key: int) -> int:
    """Where ``position`` goes in a random permutation of ``range(length)``: O(1) in time and memory.

    A balanced Feistel network over the smallest even number of bits that holds ``length``, repeated until it lands
    inside (cycle walking), which keeps it a bijection.

    Args:
        position: 0 <= position < length.
        key: which permutation (128 bits).
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    value = position
    while True:
        value = _feistel(value, half, key)
        if value < length:
            return value


_ROUNDS = 8
_WORD = (1 << 64) - 1


def _feistel(value: int, half: int, key: int) -> int:
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (_mix(right, key, turn) & mask)
    return left << half | right


def _mix(value: int, key: int, turn: int) -> int:
    """A 64-bit finaliser (splitmix64) over the value and this round's key."""
    word = (value + (key & _WORD) + (turn + 1) * 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ word >> 27 ^ key >> 64) * 0x94D049BB133111EB) & _WORD
    return word ^ word >> 31
