"""Methods that are each broken in one way: what the conformance kit is there to find."""

import os
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from udabench import Loss, Method, MethodConfig, Scalar, Stage, setting
from udabench.parts.losses import segmentation_loss


class Sound(Method):
    """The one that all others are broken copies of."""

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.network = setup.network()

    def stages(self):
        return [Stage("train", self.setup.iterations, self.step, {"segmenter": self.setup.segmenter(self.network)})]

    def loss(self, batch):
        return segmentation_loss(self.network(batch.source.image), batch.source.label)

    def step(self, batch, iteration, rng):
        yield Loss("source", self.loss(batch))

    def predict(self, samples):
        return self.network(samples.image).logits


class NoOrigin(Sound):
    class Config(MethodConfig):
        weight: float = 1.0


class LosesItsConfig(Sound):
    class Config(MethodConfig):
        order: object = setting((1, 2), "becomes a list in JSON", origin="assumed")


class ForgetsSuper(Sound):
    def __init__(self, config, setup):
        torch.nn.Module.__init__(self)
        self.network = setup.network()


class TwoStagesOfOneName(Sound):
    def stages(self):
        return [*super().stages(), *super().stages()]


class TrainsAForeignParameter(Sound):
    def stages(self):
        stage = super().stages()[0]
        return [
            Stage("train", 4, self.step, {"segmenter": self.setup.segmenter(self.network, nn.Linear(2, 2))}),
            stage,
        ][:1]


class UnknownOptimizer(Sound):
    def step(self, batch, iteration, rng):
        yield Loss("source", self.loss(batch), trains="discriminator")


class NotANumber(Sound):
    def step(self, batch, iteration, rng):
        yield Loss("source", self.loss(batch) * float("nan"))


class InfiniteGradient(Sound):
    def step(self, batch, iteration, rng):
        yield Loss("source", (self.loss(batch) * 0).sqrt())


class BackwardByHand(Sound):
    def step(self, batch, iteration, rng):
        self.loss(batch).backward()
        yield Loss("source", self.loss(batch))


class StepsByHand(Sound):
    def step(self, batch, iteration, rng):
        with torch.no_grad():
            self.network.head.bias.add_(1)
        yield Loss("source", self.loss(batch))


class NoGenerator(Sound):
    def step(self, batch, iteration, rng):
        return [Loss("source", self.loss(batch))]


class NoLoss(Sound):
    def step(self, batch, iteration, rng):
        yield Scalar("nothing", torch.zeros(()))


class ScalarWithAGraph(Sound):
    def step(self, batch, iteration, rng):
        loss = self.loss(batch)
        yield Scalar("loss", loss)
        yield Loss("source", loss)


class NumpyRandom(Sound):
    def step(self, batch, iteration, rng):
        yield Loss("source", self.loss(batch) * float(np.random.rand()))  # noqa: NPY002


class PythonRandom(Sound):
    def step(self, batch, iteration, rng):
        yield Loss("source", self.loss(batch) * random.random())


class SharedState(Sound):
    """A class attribute outlives the method."""

    steps = 0

    def step(self, batch, iteration, rng):
        SharedState.steps += 1
        yield Loss("source", self.loss(batch) * SharedState.steps)


class HiddenCounter(Sound):
    """A plain number that the loss depends on."""

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.steps = 0

    def step(self, batch, iteration, rng):
        self.steps += 1
        yield Loss("source", self.loss(batch) * self.steps)


class HiddenPrototype(Sound):
    """A tensor that is no buffer, and that the prediction depends on."""

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.shift = torch.zeros(19)

    def step(self, batch, iteration, rng):
        self.shift = self.shift + 1
        yield Loss("source", self.loss(batch))

    def predict(self, samples):
        return super().predict(samples) + self.shift.view(1, 19, 1, 1)


class WrongClasses(Sound):
    def predict(self, samples):
        return super().predict(samples)[:, :13]


class LearnsWhilePredicting(Sound):
    def predict(self, samples):
        self.network.train()
        return super().predict(samples)


class HiddenMemory(Sound):
    """What it remembers matters late: only a whole run that is killed shows it."""

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.steps = 0

    def step(self, batch, iteration, rng):
        self.steps += 1
        yield Loss("source", self.loss(batch) * (self.steps if iteration >= 5 else 1))


class ReadsTargetLabels(Sound):
    """Finds the label files by itself."""

    def step(self, batch, iteration, rng):
        folder = Path(os.environ.get("UDABENCH_DATA", "/nowhere")) / "fake-target" / "labels" / "train"
        yield Loss("source", self.loss(batch) * (1 + len(list(folder.glob("*.png")))))


class DependsOnHash(Sound):
    """The order of a set of strings differs between processes."""

    def step(self, batch, iteration, rng):
        yield Loss("source", self.loss(batch) * (1 + hash("a") % 100))


class CountsWhatIsLeft(Sound):
    """Gathers over the images that a pass has yet to treat: of a pass that was killed, not all."""

    def stages(self):
        (train,) = super().stages()
        return [Stage("look", 0, domains=("target",), prepare=self.gather), train]

    def gather(self, workspace):
        brightness = torch.zeros(())
        for samples in workspace.images("target", skip_done="mask"):
            workspace.write("mask", samples.names[0], (samples.image[0, 0] > 0.5).long())
            brightness += samples.image.mean().cpu()
        workspace.write_table("brightness", {"sum": brightness})


class ForgetsBetweenStages(Sound):
    """Hands something on to the next stage beside its state."""

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.warmed = False

    def stages(self):
        optimizers = {"segmenter": self.setup.segmenter(self.network)}
        return [Stage("warm", 4, self.warm, optimizers), Stage("train", 4, self.step, optimizers)]

    def warm(self, batch, iteration, rng):
        self.warmed = True
        yield Loss("source", self.loss(batch))

    def step(self, batch, iteration, rng):
        yield Loss("source", self.loss(batch) * (2 if self.warmed else 1))
