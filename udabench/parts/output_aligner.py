"""Output alignment as a method: supervised on the source, adversarial on the target (AdaptSegNet, ADVENT, BDL)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import ClassVar

from torch import Generator as Rng
from torch import Tensor

from udabench.config import MethodConfig, setting
from udabench.method import Batch, Event, Method, Optimizer, Panel, Samples, Setup, Stage
from udabench.network import Network, Output
from udabench.parts.domain_passes import Passes, domain_losses
from udabench.parts.entropy import normalised_entropy
from udabench.parts.losses import Reduction, segmentation_loss, upsample
from udabench.parts.output_alignment import OPTIMIZER, Labels, OutputAlignment, Prediction, Space, Terms, predicted
from udabench.parts.panels import prediction_panel

_CODE = "AdaptSegNet code, ADVENT code"


class OutputAlignmentConfig(MethodConfig):
    """Keys of an adversarial game on predictions, with the values that AdaptSegNet and ADVENT share."""

    adversarial_weight: float = setting(1e-3, "lambda, weight of the main logits' adversarial loss", origin=_CODE, ge=0)
    auxiliary_weight: float = setting(
        2e-4,
        "the same of the auxiliary head's; 0: one level; without effect where the network has no such head",
        origin=_CODE,
        ge=0,
    )
    gan: Labels = setting("bce", "log-loss, or lsgan: least squares to the same labels", origin=_CODE)
    discriminator_lr: float = setting(
        1e-4, "learning rate of the discriminators (Adam), on the segmenter's schedule", origin=_CODE, gt=0, le=1
    )
    discriminator_betas: tuple[float, float] = setting((0.9, 0.99), "their betas", origin=_CODE)
    discriminator_width: int = setting(
        64, "channels of their first layer; the next have 2, 4 and 8 times as many", origin=_CODE, unit="channels", ge=1
    )
    ce_avg: Reduction = setting("valid", "cross entropy divided by all pixels or by the labelled ones", origin=_CODE)
    student_batch: Passes = setting(
        "separate", "forward passes of the network: one for each domain, or one for all images", origin=_CODE
    )


class OutputAligner(Method):
    """Cross entropy on the source, and predictions on the target that pass for the source's.

    A method that adds to an objective overrides :meth:`source_terms` or :meth:`target_terms`.
    """

    Config = OutputAlignmentConfig
    accumulates = True
    outputs = ("source", "target")
    space: ClassVar[Space] = "probability"
    config: OutputAlignmentConfig

    def __init__(self, config: OutputAlignmentConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self.student = setup.network()
        weights = [config.adversarial_weight, config.auxiliary_weight]
        levels = 2 if config.auxiliary_weight > 0 and has_auxiliary_head(self.student) else 1
        self.alignment = OutputAlignment(
            len(setup.task.classes), weights[:levels], self.space, config.gan, config.discriminator_width
        )
        self.alignment.check(setup.crop)

    def stages(self) -> Sequence[Stage]:
        return [Stage("adapt", self.setup.iterations, self.step, self.optimizers())]

    def optimizers(self) -> dict[str, Optimizer]:
        """Both players', on one schedule."""
        config, segmenter = self.config, self.setup.segmenter(self.student)
        discriminator = self.alignment.optimizer(
            config.discriminator_lr, config.discriminator_betas, segmenter.schedule
        )
        return {"segmenter": segmenter, OPTIMIZER: discriminator}

    def step(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step: the segmenter's losses, then the discriminators' on the same predictions. All step at its end."""
        assert batch.source is not None
        assert batch.target is not None
        seen = yield from self._segment(batch.source, batch.target)
        yield from self.alignment.learn(seen["source"], seen["target"])
        yield from _panels(seen["target"], batch.target)

    def _segment(self, source: Samples, target: Samples) -> Generator[Event, None, dict[str, Prediction]]:
        """The segmenter's losses. Returns what it said of each domain, detached."""
        samples = {"source": source, "target": target}
        seen: dict[str, Prediction] = {}

        def objective(name: str, output: Output) -> Terms:
            return self.source_terms(output, source) if name == "source" else self.target_terms(output, target)

        images = {name: each.image for name, each in samples.items()}
        for loss in domain_losses(self.student, images, objective, self.config.student_batch):
            yield loss
            seen |= {name: predicted(output, samples[name]).detach() for name, output in loss.outputs.items()}
        return seen

    def source_terms(self, output: Output, source: Samples) -> Terms:
        """The supervised cross entropy of all heads."""
        loss = segmentation_loss(output, source.label, reduction=self.config.ce_avg)
        return loss, {"source": loss}

    def target_terms(self, output: Output, target: Samples) -> Terms:
        """The adversarial loss of all levels."""
        return self.alignment.hiding_loss(predicted(output, target))

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.student(samples.image).logits
        return logits


def has_auxiliary_head(network: Network) -> bool:
    """Whether it was built with a second head on an earlier map (``network.options.auxiliary``)."""
    return getattr(network, "auxiliary_head", None) is not None


def _panels(prediction: Prediction, target: Samples) -> Generator[Event, None, None]:
    logits, size = prediction.levels[0], prediction.size
    yield Panel("target", lambda: target.image)
    yield Panel("entropy", lambda: normalised_entropy(upsample(logits, size)))
    yield prediction_panel(logits, size)
