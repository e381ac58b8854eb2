"""A method of generations: a warm-up, then again and again labels and a network that learns them from the start."""

import torch

from udabench import Entry, Loss, Method, MethodConfig, Scalar, Stage, hookimpl, setting
from udabench.parts.losses import segmentation_loss, upsample


class Config(MethodConfig):
    generations: int = setting(1, "generations", ge=0)
    warm: int = setting(3, "steps of the warm-up", ge=1)
    smooth: float = setting(0.0, "smoothing of the source's loss", ge=0)
    weight: float = setting(1.0, "weight of the pseudo-labels", ge=0, stages="adapt-*")


class Generations(Method):
    Config = Config

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.config = config
        self.teacher = setup.network()
        self.network = setup.network()
        self.register_buffer("seen", torch.zeros(()))

    def stages(self):
        yield_from = [Stage("warm", self.config.warm, self.warm, self._optimizers(self.teacher), domains=("source",))]
        for number in range(1, self.config.generations + 1):
            yield_from += [
                Stage(f"label-{number}", 0, domains=("target",), prepare=self.label),
                Stage(
                    f"adapt-{number}",
                    2,
                    self.adapt,
                    self._optimizers(self.network),
                    layers={"label": ("target", "label")},
                    start=self.begin,
                ),
            ]
        return yield_from

    def _optimizers(self, network):
        return {"segmenter": self.setup.segmenter(network)}

    def begin(self):
        self.network = self.setup.network()

    def warm(self, batch, iteration, rng):
        output = self.teacher(batch.source.image)
        yield Loss("source", segmentation_loss(output, batch.source.label) + self.config.smooth * output.logits.var())

    def label(self, workspace):
        model = self.teacher if self.seen == 0 else self.network
        for samples in workspace.images("target", skip_done="label"):
            logits = upsample(model(samples.image).logits, samples.image.shape[-2:])
            workspace.write("label", samples.names[0], logits.argmax(1)[0])
            yield Scalar("sure", logits.softmax(1).amax(1).mean())

    def adapt(self, batch, iteration, rng):
        self.seen += 1
        loss = segmentation_loss(self.network(batch.target.image), batch.target.layers["label"])
        yield Loss("target", self.config.weight * loss)

    def predict(self, samples):
        return (self.network if self.seen else self.teacher)(samples.image).logits


@hookimpl
def register_methods():
    return {"generations": Entry(Generations, "for tests")}
