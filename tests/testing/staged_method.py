"""A sound method that uses all of the contract: stages, a refresh, layers, two optimisers, an inner method, a table."""

import torch
from torch import nn

from udabench import IGNORE, Entry, Loss, Method, Panel, Probe, Scalar, Stage, Update, hookimpl
from udabench.method import Group, Optimizer
from udabench.parts.losses import segmentation_loss, upsample


class Staged(Method):
    """Warm-up by an inner method with an adversary, then two generations of pseudo-labels."""

    def __init__(self, config, setup):
        super().__init__(config, setup)
        self.inner = setup.method("source_only")
        self.network = setup.network()
        self.critic = nn.Conv2d(19, 1, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def stages(self):
        half = self.setup.iterations // 2
        first = {
            "segmenter": self.setup.segmenter(self.inner.student),
            "critic": Optimizer("adam", [Group(list(self.critic.parameters()), 1e-3)]),
        }
        second = {"segmenter": self.setup.segmenter(self.network)}
        return [
            Stage("warm", half, self.warm, first, context=self.setup.target_size),
            Stage(
                "adapt",
                self.setup.iterations - half,
                self.adapt,
                second,
                domains=("target",),
                layers={"label": ("target", "pseudo"), "sure": ("target", "confidence")},
                start=self.begin,
                prepare=self.label_all,
                prepare_every=2,
                after_step=self.count,
            ),
        ]

    def warm(self, batch, iteration, rng):
        yield from self.inner.stages()[0].step(batch, iteration, rng)
        fooled = self.critic(self.inner.student(batch.target.image).logits)
        yield Loss("fool", nn.functional.softplus(-fooled).mean())
        logits = self.inner.student(batch.source.context.image).logits.detach()
        yield Loss("critic", nn.functional.softplus(self.critic(logits)).mean(), "critic")
        yield Update("critic")
        yield Scalar("draw", torch.rand((), generator=rng))

    def begin(self):
        self.network.load_state_dict(self.inner.student.state_dict())

    def label_all(self, workspace):
        model = self.inner.student if self.seen == 0 else self.network
        model.eval()
        for samples in workspace.images("target", skip_done="confidence"):
            with torch.no_grad():
                share, label = upsample(model(samples.image).logits, samples.image.shape[-2:]).softmax(1).max(1)
            workspace.write("pseudo", samples.names[0], label[0])
            workspace.write("confidence", samples.names[0], share[0, None])
        counts = torch.zeros(19)
        for samples in workspace.images("target"):
            counts += workspace.read("pseudo", samples.names[0]).flatten().bincount(minlength=19)
        workspace.write_table("counts", {"pixels": counts})

    def adapt(self, batch, iteration, rng):
        layers = batch.target.layers
        label = layers["label"].masked_fill(layers["sure"][:, 0] < 0.3, IGNORE)
        yield Loss("target", segmentation_loss(self.network(batch.target.image), label))
        yield Probe("pseudo", label, batch.target)
        yield Panel("sure", lambda: layers["sure"][:, 0])

    def count(self, iteration):
        self.seen += 1

    def predict(self, samples):
        return self.network(samples.image).logits


@hookimpl
def register_methods():
    return {"staged": Entry(Staged, "everything that the contract offers")}
