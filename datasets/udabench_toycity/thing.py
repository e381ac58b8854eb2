"""A thing in the street: what it is, where it stands, and how large it is. Drawing it comes later."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """Attributes: x, z: metres, the middle of its near end; ``turn``: what faces the camera, or which way it goes."""

    kind: str
    x: float
    z: float
    width: float = 0.5
    length: float = 0.5
    height: float = 1.0
    turn: int = 1
    variant: int = 0
