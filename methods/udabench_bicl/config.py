"""The values of BiCL, each with its origin ("DASS code": what the authors released, which has no dynamic labels)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import model_validator

from udabench.config import MethodConfig, setting

Absent = Literal["drop", "minus_one"]
Features = Literal["encoder", "branches"]
Labels = Literal["static", "dynamic", "hybrid"]
Pooling = Literal["pixels", "nearest"]
StaticRule = Literal["cbst", "dass"]

lasting = partial(setting, stages="")
"""A stage's length, which a run that goes on from another one compares by itself."""
adapting, distilling = partial(setting, stages="adapt"), partial(setting, stages="distil")
"""What has no influence on the stages before."""


class BiCLConfig(MethodConfig):
    # Stages
    warmup_share: float = lasting(
        1 / 6,
        "share of the run's iterations that train on the source alone first; 0: the network is used as it is given "
        "(--init-from RUN)",
        origin="assumed (the paper states no length)",
        ge=0,
        lt=1,
    )
    distil_share: float = lasting(
        0.0,
        "share of the run's iterations that train a new network on the adapted one's predictions at the end; 0: none",
        origin="assumed (the paper states no length)",
        ge=0,
        lt=1,
    )

    # Contrast
    fc_weight: float = adapting(0.2, "lambda_FC, of the forward contrastive term (Eq 12)", origin="DASS code", ge=0)
    bc_weight: float = adapting(0.2, "lambda_BC, of the backward contrastive term (Eq 12)", origin="DASS code", ge=0)
    temperature: float = adapting(0.1, "tau (Eq 2, 3)", origin="DASS code", gt=0)
    features: Features = adapting(
        "encoder",
        "f: the encoder's last map, or the outputs of the head's branches side by side (DeepLabV2: C each)",
        origin="paper 3.1",
    )
    pooling: Pooling = adapting(
        "pixels",
        "labels of the prototypes (Eq 1): all pixels of a cell, or the one that nearest downsampling takes",
        origin="assumed",
    )
    absent_in_denominator: Absent = adapting(
        "drop", "a class without a prototype in Eq 2 and 3: left out, or with the cosine -1", origin="assumed"
    )

    # Pseudo-labels
    contrast_labels: Labels = adapting(
        "hybrid", "y_T of the contrast and of the target's prototypes", origin="paper 3.3"
    )
    segment_labels: Labels = adapting(
        "static", "y_T of the target's cross entropy", origin="assumed (Eq 11 reads static, the overview hybrid)"
    )
    calibrate: bool = adapting(True, "xi is added to the prototypes of dynamic labels (Eq 7)", origin="paper Eq 7")
    label_prototypes: Literal["instance", "running"] = adapting(
        "instance", "whose classes are transferred: rho_S of the pair's source image, or mu_S", origin="paper Fig 7"
    )
    momentum: float = adapting(0.999, "lambda, momentum of mu (Eq 4, 5)", origin="assumed", ge=0, lt=1)
    threshold: float = adapting(0.8, "T, least cosine of a dynamic label (Eq 8)", origin="assumed", ge=-1, le=1)
    refresh_every: int = adapting(10_000, "static labels are made anew", origin="paper 4.1", unit="iterations", ge=1)
    static_rule: StaticRule = adapting(
        "cbst", "static labels: CBST's rule, or that of the released code (see README)", origin="paper 3.4"
    )
    static_portion: float = adapting(
        0.2,
        "share of each class that is kept (cbst), or of each class and of each image (dass)",
        origin="assumed (CBST code's first; Tab 4 has 20.1 % static labels)",
        gt=0,
        le=1,
    )

    # Base losses
    source_weight: float = adapting(1.0, "lambda_seg^S (Eq 11)", origin="DASS code", ge=0)
    target_weight: float = adapting(0.3, "lambda_seg^T (Eq 11)", origin="DASS code (lambt)", ge=0)
    source_entropy_weight: float = adapting(
        0.4, "lambda_ent^S (Eq 11), of the entropy in nats", origin="DASS code (lamb)", ge=0
    )
    target_entropy_weight: float = adapting(
        0.12, "lambda_ent^T (Eq 11), of the entropy in nats", origin="DASS code (lamb * lambt)", ge=0
    )
    round_decay: float = adapting(
        1.0,
        "factor on the rate at each refresh, within which the schedule then begins again; 1: one schedule",
        origin="paper 4.1",
        gt=0,
        le=1,
    )

    # Self-distillation
    kd_weight: float = distilling(1.0, "weight of the divergence from the teacher", origin="ProDA code", ge=0)
    distil_threshold: float = distilling(
        0.95, "least probability of a teacher's label", origin="ProDA code", ge=0, le=1
    )
    distil_weights: str | None = distilling(
        None, "initial weights of the new network (ProDA: SimCLR); none: those of network.weights", origin="assumed"
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> BiCLConfig:
        if self.warmup_share + self.distil_share >= 1:
            raise ValueError(
                f"warmup_share {self.warmup_share:g} and distil_share {self.distil_share:g} leave nothing for the "
                "adaptation: their sum must be below 1"
            )
        weights = [name for name in type(self).model_fields if name.endswith("_weight") and name != "kd_weight"]
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"{', '.join(weights)} are all 0: nothing would be learnt")
        return self

    @property
    def begins_trained(self) -> bool:
        return self.warmup_share == 0
