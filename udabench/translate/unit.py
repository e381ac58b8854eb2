"""UNIT (Liu et al. 2017): domains that share a latent space, in the form and with the values of the MUNIT code."""

from __future__ import annotations

from collections.abc import Generator as Events
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.method import Domain, Event, Group, Optimizer, Update
from udabench.networks.discriminator import MultiScaleDiscriminator, StridedDiscriminator
from udabench.networks.generator import unsigned
from udabench.networks.unit import Autoencoder
from udabench.parts.adversarial import distance, generator_loss
from udabench.parts.perceptual import perceptual as perceptual_loss
from udabench.schedules import StepSchedule
from udabench.translate.bounds import all_within
from udabench.translate.draws import noise_like
from udabench.translate.learnt import DISCRIMINATORS, FORM, GENERATORS, OTHER, Images, LearntTranslator, loss_of


class _Code(NamedTuple):
    """Of one domain's images: the mean of their code, and the code that was drawn around it with variance 1."""

    mean: Tensor
    drawn: Tensor


class UNIT(LearntTranslator):
    """An autoencoder and a discriminator of three scales for each domain; a translation goes through both autoencoders.

    The discriminators are stepped first, on translations of their own noise; then the generators are judged by them.
    The code's sum of both sides is not halved, and its perceptual term is left out: a squared difference of VGG16's
    instance-normalised maps. ``perceptual`` puts this benchmark's into its place, of a translation and its original.

    Args:
        width: channels of the autoencoders' stem.
        blocks: residual blocks of an encoder, and of a decoder.
        discriminator_width: channels of the discriminators' first layer.
        discriminator_layers: their convolutions of stride 2.
        scales: of the discriminators' pyramid.
        adversarial: weight of the least-squares GAN, for both players.
        reconstruction: of images that go through their own autoencoder, L1.
        kl: of the mean square of the codes' means, which is twice a code's divergence from N(0, 1).
        cycle: of images that are translated forth and back, L1.
        cycle_kl: as ``kl``, of the codes of translations.
        perceptual: of :class:`udabench.parts.perceptual.Perceptual`; 0: left out, no weights are needed.
        perceptual_network, perceptual_weights: where it takes its features from.
        lr: of both players.
        decay_every: iterations after which it is halved, each time.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 4,
        discriminator_width: int = 64,
        discriminator_layers: int = 4,
        scales: int = 3,
        adversarial: float = 1.0,
        reconstruction: float = 10.0,
        kl: float = 0.01,
        cycle: float = 10.0,
        cycle_kl: float = 0.01,
        perceptual: float = 0.0,
        perceptual_network: str = "vgg19",
        perceptual_weights: str = "imagenet",
        lr: float = 1e-4,
        decay_every: int = 100_000,
    ) -> None:
        all_within("unit", 1, 1024, width=width, blocks=blocks, discriminator_width=discriminator_width)
        all_within("unit", 1, 6, discriminator_layers=discriminator_layers, scales=scales)
        weights = {"adversarial": adversarial, "reconstruction": reconstruction, "kl": kl}
        weights |= {"cycle": cycle, "cycle_kl": cycle_kl, "perceptual": perceptual}
        all_within("unit", 0, 1000, **weights)
        all_within("unit", 0, 1, lr=lr)
        all_within("unit", 1, 10**9, decay_every=decay_every)
        one_scale = partial(StridedDiscriminator, 3, discriminator_width, discriminator_layers)
        super().__init__(
            {d: Autoencoder(3, width, blocks=blocks) for d in OTHER},
            {d: MultiScaleDiscriminator(one_scale, scales) for d in OTHER},
        )
        self.weights, self.lr, self.decay_every = weights, lr, decay_every
        self.perceptual = perceptual_loss(perceptual_network, perceptual_weights) if perceptual else None

    def optimizer(self, player: nn.Module) -> Optimizer:
        groups = [Group(tuple(player.parameters()), self.lr, weight_decay=1e-4)]
        return Optimizer("adam", groups, {"betas": (0.5, 0.999)}, StepSchedule(self.decay_every, gamma=0.5))

    def turn(self, image: Tensor, look: Domain) -> Tensor:
        return self._autoencoder(look).decode(self._autoencoder(OTHER[look]).encode(image))

    def play(self, real: Images, rng: Rng) -> Events[Event, None, None]:
        with torch.no_grad():
            judged = self._crossed(self._encode(real, rng))
        yield from self.discriminate(real, judged, 2 * self.weights["adversarial"])
        yield Update(DISCRIMINATORS)
        yield loss_of(GENERATORS, self._terms(real, rng))

    def _terms(self, real: Images, rng: Rng) -> dict[str, Tensor]:
        codes = self._encode(real, rng)
        made = self._crossed(codes)
        again = self._encode(made, rng)
        cycled = self._crossed(again)
        terms: dict[str, Tensor] = {}
        for domain, other in OTHER.items():
            own = self._autoencoder(domain).decode(codes[domain].drawn)
            values = {
                "adversarial": generator_loss(self.discriminators[domain](made[domain]), FORM),
                "reconstruction": distance(own, real[domain]),
                "kl": codes[domain].mean.float().square().mean(),
                "cycle": distance(cycled[domain], real[domain]),
                "cycle_kl": again[domain].mean.float().square().mean(),
            }
            if self.perceptual:
                values["perceptual"] = self.perceptual.loss(unsigned(made[domain]), unsigned(real[other]))
            terms |= {f"{name}_{domain}": self.weights[name] * value for name, value in values.items()}
        return terms

    def _encode(self, images: Images, rng: Rng) -> dict[Domain, _Code]:
        """Each image by the autoencoder of the domain that it is of, or looks like."""
        means = {d: self._autoencoder(d).encode(images[d]) for d in OTHER}
        return {d: _Code(mean, mean + noise_like(rng, mean)) for d, mean in means.items()}

    def _crossed(self, codes: dict[Domain, _Code]) -> Images:
        """In each domain's look, what the other domain's code is of."""
        return {d: self._autoencoder(d).decode(codes[other].drawn) for d, other in OTHER.items()}

    def _autoencoder(self, domain: Domain) -> Autoencoder:
        return cast(Autoencoder, self.generators[domain])
