"""DACS (Tranheden et al., "Domain Adaptation via Cross-domain Mixed Sampling", 2021)."""

from __future__ import annotations

from udabench.parts.scene import Scene
from udabench.parts.self_trainer import SelfTrainer
from udabench_dacs.config import DacsConfig


class Dacs(SelfTrainer[Scene]):
    """Self-training with ClassMix, with the values and the order of the authors' code."""

    Config = DacsConfig
