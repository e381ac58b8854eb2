"""The values of CBST and CRST, each with its origin ("CRST code": the authors' repository, crst_seg.py)."""

from __future__ import annotations

from functools import partial
from typing import Literal, Self

from pydantic import field_validator, model_validator

from udabench.config import MethodConfig, setting
from udabench.size import Size

labelling, retraining = partial(setting, stages="labels-*"), partial(setting, stages="retrain-*")
both = partial(setting, stages="*-*")


class CBSTConfig(MethodConfig):
    warmup_share: float = setting(
        0.5,
        "share of the run's iterations that trains on the source alone, before round 1; 0: begin with round 1 (from a "
        "trained network: --init-from)",
        origin="assumed (the paper begins with a trained network)",
        ge=0,
        lt=1,
    )
    rounds: int = setting(3, "rounds of labelling and retraining", origin="CRST code (4, the last evaluates)", ge=1)
    portion: float = labelling(0.2, "share of each class that is labelled in round 1", origin="CRST code", gt=0, le=1)
    portion_step: float = labelling(0.05, "added in each round", origin="CRST code", ge=0, le=1)
    portion_max: float = labelling(0.5, "at most", origin="CRST code", gt=0, le=1)
    subsample: int = labelling(
        2, "every n-th row and column counts for the thresholds", origin="CRST code (a pixel in 4)", ge=1
    )
    source_portion: float = both(
        0.03, "share of the source's images that round 1 trains on", origin="CRST code (GTA5)", gt=0, le=1
    )
    source_portion_step: float = both(0.0025, "added in each round", origin="CRST code (GTA5)", ge=0, le=1)
    source_portion_max: float = both(0.06, "at most", origin="CRST code (GTA5)", gt=0, le=1)
    mixture: Literal["drawn", "both"] = both(
        "drawn",
        "images of a step: drawn: data.target_batch of both domains, each from the source as often as its part of all "
        "images (make data.source_batch as large); both: every image of both halves",
        origin="CRST code (one shuffled list)",
    )
    mine_share: float = labelling(
        1e-3, "a class with a smaller share of the predicted pixels is mined; 0: none", origin="CRST code", ge=0, le=1
    )
    mine_chance: float = retraining(
        0.8, "chance that a target crop is drawn around a mined class", origin="CRST code", ge=0, le=1
    )
    label_scales: tuple[float, ...] = labelling(
        (0.9,), "scales of the target images whose predictions are averaged for labels", origin="CRST code",
        min_length=1,
    )  # fmt: skip
    label_flip: bool = labelling(True, "averaged with the mirror image", origin="CRST code (--test-flipping)")
    label_mode: Literal["whole", "slide"] = labelling("whole", "predicted whole, or in windows", origin="CRST code")
    label_window: Size = labelling("1024x1024", "window of slide", origin="HRDA code", unit="pixels")
    label_stride: Size = labelling("512x512", "stride of slide", origin="HRDA code", unit="pixels")
    frozen_norms: bool = retraining(
        True, "batch norms keep their statistics in retraining", origin="CRST code (model.eval())"
    )
    retrain_lr_factor: float = retraining(
        0.2, "learning rate of retraining over that of the source (5e-5 over 2.5e-4)", origin="CRST code", gt=0
    )
    retrain_constant: bool = retraining(
        True, "it stays what it is; no: it follows optim's schedule in each round", origin="CRST code (power 0)"
    )
    mrkld: float = retraining(
        0.0, "weight of MRKLD (the paper's row: 0.1, which acts as 0.01 in the code)", origin="CRST code", ge=0
    )
    mrent: float = retraining(0.0, "weight of MRENT", origin="CRST code (it has no such term)", ge=0)
    lrent: float = both(
        0.0, "alpha of LRENT's soft labels (0.25 in the paper's row); 0: hard labels", origin="CRST code", ge=0, lt=1
    )
    soft_classes: int = labelling(
        3,
        "classes of a soft label that are stored, 3 bytes each (lrent > 0); the others share what is left of 1",
        origin="udabench (the code stores all)",
        ge=1,
        le=256,
    )

    @field_validator("label_scales")
    @classmethod
    def _factors(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [scale for scale in scales if not 0.1 <= scale <= 10]
        if wrong:
            raise ValueError(f"label_scales: {wrong[0]:g} is no factor for an image; use 0.1 to 10")
        return scales

    @model_validator(mode="after")
    def _maxima(self) -> Self:
        for name in ("portion", "source_portion"):
            start, most = getattr(self, name), getattr(self, f"{name}_max")
            if start > most:
                raise ValueError(f"{name}: {start:g} lies above {name}_max {most:g}")
        return self

    @property
    def begins_trained(self) -> bool:
        return self.warmup_share == 0

    def portion_of(self, number: int) -> float:
        """Of each class, in round ``number`` from 1."""
        return min(self.portion + (number - 1) * self.portion_step, self.portion_max)

    def source_portion_of(self, number: int) -> float:
        """Of the source's images, in round ``number`` from 1."""
        return min(self.source_portion + (number - 1) * self.source_portion_step, self.source_portion_max)
