"""The values of ProDA, each with its origin ("ProDA code": the authors' repository)."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from udabench.config import MethodConfig, setting
from udabench.parts.distillation import Divisor, Form
from udabench.parts.ema import Norms
from udabench.parts.losses import Reduction

Mean = Literal["pixels", "images"]
warming, passing, adapting = (partial(setting, stages=first) for first in ("warmup", "prototypes", "stage1"))
labelling, distilling = partial(setting, stages="labels*"), partial(setting, stages="stage[2-9]")
"""Settings by the first stage that they act on."""


class ProDAConfig(MethodConfig):
    # Stages
    warmup_share: float | None = setting(
        None,
        "share of the run's iterations that trains on the source alone, before stage 1; 0: the network is used as it "
        "is given (--init-from RUN); none: as many as each of the other trainings",
        origin="assumed (the code's warm-up is adversarial, and as long as the other trainings)",
        ge=0,
        lt=1,
    )
    distillations: int = setting(
        2, "stages of distillation after stage 1 (2: stages 2 and 3)", origin="ProDA code", ge=0, le=8
    )
    distil_weights: str | None = distilling(
        None,
        "initial weights of the students of distillation: a name or a file; none: as the first network begins",
        origin="ProDA code (SimCLR's, in its paper rows)",
    )
    distil_options: dict[str, Any] = distilling(
        dict, "network options of these students, over network.options", origin="ProDA code (bn_clr)"
    )
    distil_start: Literal["weights", "teacher"] = distilling(
        "weights",
        "the students of the second and later distillations begin from distil_weights, or from their teacher's "
        "weights (README of the code)",
        origin="ProDA code (train.py: --no_resume)",
    )

    # Optimisers: optim.lr and optim.head_lr_factor are stage 1's
    warmup_lr: float = warming(2.5e-4, "learning rate of the warm-up", origin="ProDA code", gt=0, le=1)
    distil_lr: float = distilling(6e-4, "learning rate of the distillations", origin="ProDA code", gt=0, le=1)
    other_head_factor: float = setting(
        10.0, "learning rate of heads over the encoder's, in warm-up and distillations", origin="ProDA code", gt=0
    )

    # Prototypes
    temperature: float = adapting(1.0, "tau of the softmax over distances to prototypes", origin="ProDA code", gt=0)
    prototype_rate: float = adapting(
        1e-4, "share of a batch's means in the prototypes, each step", origin="ProDA code (proto_momentum)", ge=0, le=1
    )
    prototype_mean: Mean = passing(
        "pixels",
        "a prototype is the mean over all pixels of the target (of the batch), or the mean of the images' means (one "
        "after the other)",
        origin="paper Eq 6 (images: ProDA code)",
    )
    prototype_pixels: int = passing(
        10, "cells of a class from which on its mean counts", origin="ProDA code", unit="cells", ge=1
    )
    soft_classes: int = passing(
        6,
        "classes of each cell whose probabilities are stored; what is left of 1 is shared out among the others",
        ge=1,
        le=256,
    )

    # Stage 1
    rectify: bool = adapting(
        True, "soft labels are weighted by the distances to prototypes; no: their argmax is learnt", origin="paper Eq 3"
    )
    ema: float = adapting(0.999, "momentum of the teacher", origin="ProDA code", ge=0, lt=1)
    teacher_norms: Norms = adapting(
        "train",
        "mode of the teacher's norms: running; batch; train: of the batch, and dropout on",
        origin="ProDA code (which never puts it into eval mode)",
    )
    label_stride: int = adapting(
        4, "side of the cells in which the target's losses are taken", origin="ProDA code", unit="pixels", ge=1
    )
    ce_weight: float = adapting(0.1, "weight of the target's cross entropy", origin="ProDA code (rce_alpha)", ge=0)
    rce_weight: float = adapting(1.0, "weight of its reverse", origin="ProDA code (rce_beta)", ge=0)
    rce_floor: float = adapting(
        1e-4, "probability that a label gives to other classes, in the reverse", origin="ProDA code", gt=0, lt=1
    )
    mrkld: float = adapting(
        0.1, "weight of the divergence from uniform predictions (0 from SYNTHIA)", origin="ProDA code (MRKLD)", ge=0
    )
    consistency_weight: float = adapting(
        10.0, "weight of the divergence between the assignments of two views", origin="ProDA code", ge=0
    )
    kl_divisor: Divisor = adapting(
        "pixels",
        "divergences, of stage 1 and of distillation, are divided by the pixels, or by pixels times classes",
        origin="udabench (a mean over pixels; elements: ProDA code)",
    )

    # Distillation
    label_threshold: float = labelling(
        0.95, "pseudo-labels are kept above this confidence", origin="ProDA code", ge=0, le=1
    )
    label_flip: bool = labelling(True, "pseudo-labels come from the mean with mirrored images", origin="ProDA code")
    kd: Form = distilling(
        "corrected",
        "divergence from the teacher, or the released code's: probabilities in the place of their logarithms",
        origin="paper Eq 12 (release: ProDA code)",
    )
    kd_weight: float = distilling(1.0, "its weight", origin="ProDA code", ge=0)

    # Views and source
    operations: int = adapting(2, "operations of RandAugment", origin="ProDA code", ge=0, le=8)
    cutout: float = adapting(
        1 / 3, "side of what is cut out over the crop's shorter side; 0: nothing", origin="ProDA code", ge=0, le=1
    )
    ce_avg: Reduction = setting(
        "valid", "the source's cross entropy divided by all pixels or by the labelled ones", origin="ProDA code"
    )

    @property
    def begins_trained(self) -> bool:
        return self.warmup_share == 0
