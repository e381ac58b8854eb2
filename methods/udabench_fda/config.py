"""The values of FDA, each with its origin ("FDA code": the authors' repository).

Assumed beside the keys whose origin says so: in a self-training step the target images that lend their amplitudes are
those whose pseudo-labels are learnt (the code draws the two apart); logits and probabilities are resized without
aligned corners.
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from udabench.config import MethodConfig, setting
from udabench.parts.domain_passes import Passes
from udabench.parts.losses import Reduction


class FDAConfig(MethodConfig):
    bands: tuple[float, ...] = setting(
        (0.01, 0.05, 0.09),
        "a network is trained for each: half side of FDA's window over the shorter side",
        origin="FDA code (README)",
        min_length=1,
    )
    rounds: int = setting(
        2,
        "rounds of self-training, each from the initial weights; 0: none",
        origin="assumed (the code shows one round and states no number)",
        ge=0,
        le=16,
    )
    average: bool = setting(
        True,
        "prediction and pseudo-labels come from the mean of all bands' networks; no: each labels for itself, and the "
        "first is evaluated first",
        origin="FDA code",
    )
    entropy_weight: float = setting(0.005, "weight of the target's entropy", origin="FDA code (entW)", ge=0)
    entropy_eta: float = setting(2.0, "eta, power of the robust entropy", origin="FDA code (ita)", gt=0)
    entropy_after: int = setting(
        0,
        "the entropy acts behind this 0-based step of a training without pseudo-labels",
        origin="FDA code (switch2entropy, README)",
        unit="iterations",
        ge=0,
    )
    label_share: float = setting(
        0.66,
        "share of a class's pixels below its pseudo-label threshold (rounds > 0)",
        origin="FDA code",
        stages="labels-*",
        ge=0,
        le=1,
    )
    label_cap: float = setting(
        0.9, "largest threshold of pseudo-labels (rounds > 0)", origin="FDA code", stages="labels-*", ge=0, le=1
    )
    window: Literal["symmetric", "corner"] = setting(
        "symmetric",
        "frequencies that are exchanged: -b to b, as in the demonstration; -b to b-1, as in the training",
        origin="FDA code (NumPy version)",
    )
    clamp: bool = setting(False, "translated images are cut to the range of images", origin="FDA code")
    translate_whole: bool = setting(
        True, "translate crops of the target image's full size, before the shared crop", origin="FDA code (no crop)"
    )
    ce_avg: Reduction = setting(
        "valid", "cross entropy divided by all pixels or by the labelled ones", origin="FDA code"
    )
    student_batch: Passes = setting(
        "separate", "forward passes of the network: one for each domain, or one for all images", origin="FDA code"
    )

    @field_validator("bands")
    @classmethod
    def _bands(cls, bands: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [band for band in bands if not 0 <= band <= 0.5]
        if wrong:
            raise ValueError(f"bands: {wrong[0]:g} is no share of the shorter side that fits: use 0 to 0.5")
        names = [f"{band:g}" for band in bands]
        if len(set(names)) < len(names):
            raise ValueError(f"bands: {', '.join(names)} names one twice; each trains a network of its own")
        return bands
