"""The values of T2S-DA, each with its origin ("paper": the preprint; "journal": the extended version).

Assumed beside the keys whose origin says so: image i of the source is translated in the look of target image i (FDA's
partner); where a class has no negatives in one domain, all come from the other; weights of classes without queries are
shared out among the others.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from udabench.config import ASSUMED, setting
from udabench.parts.ema import Norms
from udabench.parts.self_training import Scope, SelfTrainingConfig

Role = Literal["source", "pseudo_target", "target"]


class T2SDAConfig(SelfTrainingConfig):
    """Self-training as in DAFormer, and the pull."""

    ema: float = setting(0.999, "momentum of the teacher", origin="paper sec 4", ge=0, lt=1)
    copy_buffers: bool = setting(True, "the teacher takes over running statistics", origin=ASSUMED)
    teacher_norms: Norms = setting("running", "statistics in the teacher's batch norms", origin="paper Alg 1 line 10")
    threshold: float = setting(
        0.968,
        "confidence from which on a pixel counts as sure (>=, as in the code of DACS; Eq S2 prints >)",
        origin="paper sec A",
        ge=0,
        le=1,
    )
    weight_scope: Scope = setting("image", "share of sure pixels is taken per image or batch", origin="paper Eq S2")
    feature_distance: float = setting(
        0.005,
        "weight of the distance to the features of the student's initial encoder, on thing classes; 0: off",
        origin="assumed (one of the paper's 'two extra strategies'; value: DAFormer)",
        ge=0,
    )

    pull_weight: float = setting(0.1, "lambda, weight of the pull", origin="paper Tab S6", ge=0)
    alignment: Literal["infonce", "mse", "none"] = setting("infonce", "loss of a positive pair", origin="paper Eq 2")
    temperature: float = setting(0.2, "tau of InfoNCE (alignment infonce)", origin="paper sec 4, Tab S7", gt=0)
    unreliable: float = setting(
        0.5,
        "alpha, share of target positions that may be negatives (alignment infonce, negatives of the target)",
        origin="paper sec 4, Tab S9",
        ge=0,
        le=1,
    )
    drw_exponent: float = setting(
        0.5, "beta of dynamic re-weighting (reweight drw)", origin="paper Eq 12, Tab S8", ge=0
    )
    absent_weight: Literal["zero", "max"] = setting(
        "zero",
        "weight of classes that no target pixel is labelled with (reweight drw): none, or as if their confidence was 0",
        origin=ASSUMED,
    )
    queries: int = setting(128, "n, base number of queries a class", origin="paper Tab S10", ge=1)
    negatives: int = setting(1024, "m, negatives a query (alignment infonce)", origin="paper Tab S10", ge=2)
    query_sampling: Literal["cbqs", "ceqs", "uniform"] = setting(
        "cbqs", "number of queries a class: by share of pixels; n each; pixels drawn uniformly", origin="paper Eq 11"
    )
    negative_sampling: Literal["denps", "pooled", "source"] = setting(
        "denps",
        "half of the negatives from each domain; from both pooled; source only (alignment infonce)",
        origin="paper sec 3.3",
    )
    ignored_negatives: bool = setting(
        False, "source positions without a label may be negatives of every class (alignment infonce)", origin=ASSUMED
    )
    reweight: Literal["none", "drw", "srw"] = setting(
        "drw",
        "class weights: equal, by the teacher's confidence, a fixed table (scaled to sum 1 on the pull)",
        origin="paper Eq 12",
    )
    reweight_on: Literal["pull", "ce"] = setting(
        "pull",
        "loss that the class weights apply to: the pull, or the target's cross entropy (there scaled to mean 1)",
        origin="journal Tab 9",
    )
    pull_reduction: Literal["mean", "literal"] = setting(
        "mean", "mean over a class's queries, or Eq 3's sum over C", origin="assumed (Alg 1 line 62)"
    )
    query_from: Role = setting("pseudo_target", "images whose features are pulled", origin="paper Tab S3")
    positive_from: Role = setting("source", "images whose class means pull", origin="paper Tab S3")
    ce_on: Literal["source", "pseudo_target"] = setting(
        "source", "images of the supervised cross entropy", origin="paper Tab S3"
    )
    pulled_map: int = setting(
        -1, "map of the encoder's pyramid whose features are pulled; -1: the last", origin="paper sec 4"
    )
    projector_width: int = setting(256, "channels of the projector", origin="paper sec 4", unit="channels", ge=1)
    projector_kernel: Literal[1, 3] = setting(1, "kernel of its convolutions", origin=ASSUMED, unit="pixels")

    translator: str = setting("fda", "engine that makes pseudo-target images", origin="paper sec 3.2")
    fda_beta: float = setting(
        0.01,
        "half side of FDA's window over the shorter side; without effect unless translator=fda",
        origin=ASSUMED,
        ge=0,
        le=0.5,
    )
    translator_options: dict[str, Any] = setting(dict, "further options of the translator")
    translated_norms: Literal["joint", "apart"] = setting(
        "joint",
        "translated images that only the pull sees move the student's running statistics, or leave them alone",
        origin=ASSUMED,
    )
    translate_whole: bool = setting(
        True, "a paired translator sees crops of the target's full size before the shared crop", origin="paper sec 4"
    )
    generalize: bool = setting(
        False, "domain generalisation: no target images at all (needs an unpaired translator)", origin="paper sec 4.4"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> T2SDAConfig:
        if self.reweight_on == "ce" and self.reweight == "none":
            raise ValueError("reweight_on=ce has no weights to apply: choose reweight=drw or srw, or reweight_on=pull")
        if not self.generalize:
            return self
        if "target" in (self.query_from, self.positive_from):
            raise ValueError("generalize: there are no target images to take queries or positives from")
        wrong = [
            f"{key}={value}"
            for key, value, ok in (
                ("negative_sampling", self.negative_sampling, "source"),
                ("reweight", self.reweight, "none"),
            )
            if value != ok
        ]
        if wrong:
            raise ValueError(f"generalize needs negative_sampling=source and reweight=none, not {', '.join(wrong)}")
        return self

    @property
    def pulls(self) -> bool:
        """Whether there is a pull at all."""
        return self.alignment != "none" and self.pull_weight > 0

    @property
    def translates(self) -> bool:
        """Whether any part of the objective looks at translated images."""
        return self.ce_on == "pseudo_target" or (
            self.pulls and "pseudo_target" in (self.query_from, self.positive_from)
        )
