"""The values of SAM, each with its origin. The paper's formulas are lost in its text; what is not in its prose is
assumed."""

from __future__ import annotations

from typing import Any, Literal, Self, cast

from pydantic import field_validator, model_validator

from udabench.config import MethodConfig, setting
from udabench.parts.domain_passes import Passes
from udabench.parts.losses import Reduction
from udabench.parts.self_attention_loss import ClassReduction, Distance, Space

Layers = Literal["prediction", "features", "both"]


class AttentionConfig(MethodConfig):
    """The self-attention module and its loss."""

    module: Literal["conv", "none"] = setting(
        "conv", "none: the attention is on the logits themselves, and nothing is to be trained", origin="paper sec 4.1"
    )
    width: int = setting(256, "channels of the module's convolution", origin="assumed", ge=1)
    kernel: int = setting(1, "side of the module's convolution", origin="assumed", unit="cells", ge=1)
    skip: bool = setting(
        True, "the module is trained on Z + Z'; no: on Z' alone (without effect if module=none)", origin="paper sec 4.1"
    )
    sa_weight: float = setting(
        0.1, "lambda, weight of the self-attention loss; 0: pseudo-labels alone", origin="paper sec 5.1", ge=0
    )
    sa_target: Literal["skip", "attended"] = setting(
        "skip", "what Z follows: Z + Z' (Eq 8) or Z' (Eq 9)", origin="paper Tab 1 (GTA5)"
    )
    sa_domains: Literal["both", "target"] = setting(
        "both", "domains of the loss: both (Eq 10) or the target (Eq 11)", origin="paper Tab 1 (GTA5)"
    )
    sa_loss: Distance = setting(
        "l1", "distance: l1, l2, kl, cos", origin="assumed (the norm of Eq 8 is lost; Tab A.5 has KL and cosine)"
    )
    sa_space: Space = setting("logits", "what is compared", origin="paper App B (a softmax for KL alone)")
    sa_reduction: ClassReduction = setting(
        "mean", "over classes the mean, or their sum (pixel): C times as much", origin="assumed"
    )
    sa_on: Layers = setting("prediction", "map that the loss acts on", origin="paper Tab A.5")
    sa_limit: float = setting(
        100.0, "a run is stopped when the mean of |Z| exceeds this", origin="assumed (float32: exp(-104) = 0)", gt=0
    )

    @property
    def layers(self) -> tuple[str, ...]:
        """The maps by name."""
        return ("prediction", "features") if self.sa_on == "both" else (self.sa_on,)

    @field_validator("kernel")
    @classmethod
    def _kernel(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"kernel: {kernel} has no middle; use an odd number, such as {kernel + 1}")
        return kernel

    @model_validator(mode="after")
    def _features_are_no_probabilities(self) -> Self:
        if "features" in self.layers and (self.sa_space == "probabilities" or self.sa_loss == "kl"):
            raise ValueError(
                f"sa_on={self.sa_on}: features have no probabilities; use sa_space=logits and sa_loss l1, l2 or cos"
            )
        return self


class SAMConfig(AttentionConfig):
    generations: int = setting(
        1,
        "trainings with pseudo-labels, each from the initial weights; 0: the source alone (No Pseudo)",
        origin="paper Tab 1",
        ge=0,
        le=16,
    )
    attention_share: float = setting(
        1.0, "length of the module's training over that of a generation's", origin="assumed", gt=0, le=100
    )
    baseline_share: float = setting(
        1.0, "length of the training on the source over that of a generation's", origin="assumed", gt=0, le=100
    )
    label_share: float = setting(
        0.5,
        "share of a class's pixels below its pseudo-label threshold",
        origin="paper App C",
        stages="labels-*",
        ge=0,
        le=1,
    )
    label_cap: float = setting(
        0.9, "largest threshold of pseudo-labels", origin="paper App C", stages="labels-*", ge=0, le=1
    )
    translator: str = setting(
        "fda",
        "engine that translates source images",
        origin="assumed (for the paper's CycleGAN images of BDL: translator=folder)",
    )
    translator_options: dict[str, Any] = setting(dict, "options of the translator")
    ce_avg: Reduction = setting(
        "valid", "cross entropy divided by all pixels or by the labelled ones", origin="BDL code"
    )
    student_batch: Passes = setting(
        "separate", "forward passes of the network: one for each domain, or one for all images", origin="BDL code"
    )

    @property
    def attends(self) -> bool:
        """Whether there is a self-attention loss."""
        return self.generations > 0 and self.sa_weight > 0


for _key in ("sa_weight", "sa_target", "sa_domains", "sa_loss", "sa_space", "sa_reduction", "sa_limit"):
    # Here the loss acts in generations; around another method, in stages of any name.
    _field = SAMConfig.model_fields[_key]
    _field.json_schema_extra = {**cast("dict[str, Any]", _field.json_schema_extra), "stages": "adapt-*"}
