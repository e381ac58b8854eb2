"""Direct entropy minimisation (ADVENT's MinEnt, Vu et al., 2019): L = L_seg(source) + lambda * entropy(target)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from torch import Generator as Rng
from torch import Tensor

from udabench.method import Batch, Event, Loss, Method, Panel, Samples, Setup, Stage
from udabench.network import Output
from udabench.parts.domain_passes import domain_losses
from udabench.parts.entropy import mean_entropy, normalised_entropy
from udabench.parts.losses import segmentation_loss, upsample
from udabench.parts.panels import prediction_panel
from udabench_min_entropy.config import MinEntropyConfig


class MinEntropy(Method):
    """Cross entropy on the source, mean normalised entropy on the target. No teacher: it accumulates."""

    Config = MinEntropyConfig
    accumulates = True
    outputs = ("source", "target")

    def __init__(self, config: MinEntropyConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self.student = setup.network()

    def stages(self) -> Sequence[Stage]:
        optimizers = {"segmenter": self.setup.segmenter(self.student)}
        return [Stage("adapt", self.setup.iterations, self.step, optimizers)]

    def step(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step: the source's gradient first (ADVENT's train_minent)."""
        assert batch.source is not None
        assert batch.target is not None
        source, target = batch.source, batch.target

        def objective(name: str, output: Output) -> tuple[Tensor, Mapping[str, Tensor]]:
            return self._supervised(output, source) if name == "source" else self._entropy(output, target)

        images = {"source": source.image, "target": target.image}
        for loss in domain_losses(self.student, images, objective, self.config.student_batch):
            yield loss
            yield from _panels(loss, target)

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.student(samples.image).logits
        return logits

    def _supervised(self, output: Output, source: Samples) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss = segmentation_loss(output, source.label, reduction=self.config.ce_avg)
        return loss, {"source": loss}

    def _entropy(self, output: Output, target: Samples) -> tuple[Tensor, Mapping[str, Tensor]]:
        """At the image's resolution: logits are upsampled before the softmax."""

        def entropy(logits: Tensor) -> Tensor:
            return mean_entropy(upsample(logits, target.image.shape[-2:]), target.valid)

        main = entropy(output.logits)
        value = self.config.entropy_weight * main
        if self.config.auxiliary_weight:
            for head in output.heads:
                value = value + self.config.auxiliary_weight * entropy(head.logits)
        return value, {"entropy": main}


def _panels(loss: Loss, target: Samples) -> Generator[Event, None, None]:
    """Of the pass that holds the target."""
    if "target" not in loss.outputs:
        return
    logits, size = loss.outputs["target"].logits.detach(), target.image.shape[-2:]
    yield Panel("target", lambda: target.image)
    yield Panel("entropy", lambda: normalised_entropy(upsample(logits, size)))
    yield prediction_panel(logits, size)
