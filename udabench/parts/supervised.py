"""Plain supervised training on one domain: the lower and the upper bound of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import ClassVar

from torch import Generator as Rng
from torch import Tensor

from udabench.augment.photometry import distort
from udabench.config import MethodConfig, setting
from udabench.method import Batch, Domain, Event, Loss, Method, Panel, Samples, Setup, Stage
from udabench.parts.losses import Reduction, segmentation_loss
from udabench.parts.panels import prediction_panel


class SupervisedConfig(MethodConfig):
    photometric_distortion: bool = setting(
        True, "random brightness, contrast, saturation and hue", origin="DAFormer code, source-only config"
    )
    ce_avg: Reduction = setting(
        "all", "cross entropy divided by all pixels or by the labelled ones", origin="DAFormer code (mmseg 0.16)"
    )


class Supervised(Method):
    """Cross entropy on the labels of ``domain``. No EMA and no statistics of the batch: it accumulates."""

    Config = SupervisedConfig
    accumulates = True
    domain: ClassVar[Domain] = "source"

    def __init__(self, config: SupervisedConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self.student = setup.network()

    def stages(self) -> Sequence[Stage]:
        optimizers = {"segmenter": self.setup.segmenter(self.student)}
        return [Stage("train", self.setup.iterations, self.step, optimizers, domains=(self.domain,))]

    def step(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step: cross entropy of the (distorted) images."""
        samples = batch.source if self.domain == "source" else batch.target
        if samples is None or samples.label is None:
            raise ValueError(f"no labelled {self.domain} images in the batch")
        image, label = self.views(samples, samples.label, rng)
        if self.config.photometric_distortion:
            image = distort(image, rng)
        output = self.student(image)
        yield Loss(self.domain, segmentation_loss(output, label, reduction=self.config.ce_avg))
        yield Panel("image", lambda: image)
        yield Panel("label", lambda: label)
        yield prediction_panel(output.logits, label.shape[-2:])

    def views(self, samples: Samples, label: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """The images that are trained on, with their labels."""
        return samples.image, label

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.student(samples.image).logits
        return logits

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        return {"student": self.predict}
