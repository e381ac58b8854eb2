"""The values of DACS, as the authors' code has them where it differs from DAFormer's version of it."""

from __future__ import annotations

from typing import Literal

from udabench.config import setting
from udabench.parts.ema import Norms
from udabench.parts.losses import Reduction
from udabench.parts.self_training import Scope, SelfTrainingConfig

_CODE = "DACS code"


class DacsConfig(SelfTrainingConfig):
    """Self-training without the additions of DAFormer: no margins, no feature distance."""

    ema: float = setting(0.99, "momentum of the teacher", origin=_CODE, ge=0, lt=1)
    ema_update: Literal["before", "after"] = setting(
        "after", "when the teacher follows: before a step (DAFormer), or after its optimiser", origin=_CODE
    )
    copy_buffers: bool = setting(False, "the teacher takes over running statistics", origin=_CODE)
    teacher_norms: Norms = setting(
        "train",
        "statistics in the teacher's norms: running; of the batch; train: of the batch, and dropout on",
        origin=_CODE,
    )
    weight_scope: Scope = setting("batch", "share of sure pixels is taken per image or batch", origin=_CODE)
    ignored_top: int = setting(
        0, "rows at the target's upper border without pseudo-labels", origin=_CODE, unit="rows", ge=0
    )
    ignored_bottom: int = setting(0, "rows at its lower border, likewise", origin=_CODE, unit="rows", ge=0)
    mix_scope: Scope = setting("image", "ClassMix draws from the classes of the image or batch", origin=_CODE)
    jitter_strength: float = setting(0.25, "colour jitter of mixed images", origin=_CODE, ge=0, le=0.5)
    ce_avg: Reduction = setting(
        "valid", "supervised cross entropy divided by all pixels or by the labelled ones", origin=_CODE
    )
    mixed_ce_avg: Reduction | None = setting("all", "the same of mixed images; none: as ce_avg", origin=_CODE)
    student_batch: Literal["separate", "mixed", "all"] = setting(
        "separate", "forward passes of the student: one each; source and mixed images joint; all joint", origin=_CODE
    )
    feature_distance: float = setting(
        0.0,
        "weight of the distance to the features of the student's initial encoder, on thing classes; 0: off",
        origin=_CODE,
        ge=0,
    )
