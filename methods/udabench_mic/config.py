"""The values of MIC, with those of its code (``mask_mode`` separatetrgaug: target images only, with colour changes)."""

from __future__ import annotations

from typing import Literal

from udabench.config import WrapperConfig, setting
from udabench.parts.losses import Reduction


class MICConfig(WrapperConfig):
    """Masked image consistency."""

    inner: str = setting("daformer", "self-training method that is wrapped", origin="MIC code")
    masked_weight: float = setting(
        1.0, "weight of the cross entropy on masked images; 0: off", origin="MIC code, mask_lambda", ge=0
    )
    mask_ratio: float = setting(0.7, "share of the blocks that is hidden", origin="MIC code", ge=0, le=1)
    block: int | None = setting(
        None,
        "side of a block; none: a sixteenth of the crop's height",
        origin="MIC code: 64 at crops of 1024, 32 at 512",
        unit="pixels",
        ge=1,
    )
    masked_jitter_strength: float = setting(
        0.2, "colour jitter before masking", origin="MIC code, color_jitter_strength", ge=0, le=0.5
    )
    masked_jitter_chance: float = setting(
        0.8, "chance of colour jitter", origin="MIC code, color_jitter_probability", ge=0, le=1
    )
    masked_blur_chance: float = setting(0.5, "chance of blur", origin="MIC code", ge=0, le=1)
    masked_ce_avg: Reduction = setting(
        "all",
        "cross entropy of masked images divided by all pixels or by the labelled ones",
        origin="MIC code (mmseg 0.16)",
    )
    masked_norms: Literal["joint", "apart"] = setting(
        "joint",
        "whether running statistics of batch norms see masked images; apart: these are normalised by their own, and "
        "leave no trace",
        origin="MIC code (joint)",
    )
