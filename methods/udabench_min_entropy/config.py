"""The values of direct entropy minimisation, each with its origin ("ADVENT code": its file of defaults)."""

from __future__ import annotations

from udabench.config import MethodConfig, setting
from udabench.parts.domain_passes import Passes
from udabench.parts.losses import Reduction


class MinEntropyConfig(MethodConfig):
    entropy_weight: float = setting(
        1e-3, "lambda, weight of the entropy of the main logits", origin="ADVENT code (LAMBDA_ENT_MAIN)", ge=0
    )
    auxiliary_weight: float = setting(
        2e-4,
        "weight of the entropy of each further head; without effect where the network has none",
        origin="ADVENT code (LAMBDA_ENT_AUX)",
        ge=0,
    )
    ce_avg: Reduction = setting(
        "valid", "cross entropy divided by all pixels or by the labelled ones", origin="ADVENT code"
    )
    student_batch: Passes = setting(
        "separate", "forward passes of the network: one for each domain, or one for all images", origin="ADVENT code"
    )
