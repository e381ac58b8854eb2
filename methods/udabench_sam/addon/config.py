"""The values of SAM's loss around another method."""

from __future__ import annotations

from udabench.config import WrapperConfig, setting
from udabench_sam.config import AttentionConfig


class SAMAddonConfig(AttentionConfig, WrapperConfig):
    """The module and its loss as in SAM; a weight of 0 leaves the method inside alone."""

    inner: str = setting("proda", "method that the loss is added to", origin="paper sec 5.5")
    sa_weight: float = setting(
        0.005,
        "lambda, weight of the self-attention loss; 0: the method inside alone",
        origin="paper sec 5.5 (ProDA)",
        ge=0,
    )
    attention_share: float = setting(
        0.25, "length of the module's training over that of the method inside", origin="assumed", gt=0, le=100
    )
    sa_stages: tuple[str, ...] | None = setting(
        None,
        "stages of the method inside that get the loss, such as [adapt] or [stage3*]; none: all on the target",
        origin="paper sec 5.5 (the last one of ProDA)",
    )
