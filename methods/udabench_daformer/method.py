"""DAFormer (Hoyer et al., "Improving Network Architectures and Training Strategies for UDA", 2022).

Its three strategies are keys of their own: rare class sampling is ``data.sampler``, the thing-class feature distance
``feature_distance``, the warm-up ``optim.warmup``. HRDA (Hoyer et al., 2022) is the same on another network.
"""

from __future__ import annotations

from udabench.parts.scene import Scene
from udabench.parts.self_trainer import SelfTrainer
from udabench.parts.self_training import SelfTrainingConfig


class DAFormer(SelfTrainer[Scene]):
    """Self-training with ClassMix; the shared part has DAFormer's values."""

    Config = SelfTrainingConfig
