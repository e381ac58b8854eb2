"""The contract of translation engines that are trained first, on images of both domains, without labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator as Events
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.method import Batch, Domain, Event, Loss, Optimizer, Panel, Scalar
from udabench.networks.discriminator import Discriminator
from udabench.networks.generator import SIGNED, Generator, unsigned
from udabench.parts.adversarial import Form, accuracy, discriminator_loss
from udabench.size import Size
from udabench.translate.base import Translator

OTHER: Mapping[Domain, Domain] = {"source": "target", "target": "source"}
GENERATORS, DISCRIMINATORS = "generators", "discriminators"
"""The players: names of their optimisers and of their losses."""
FORM: Form = "lsgan"
"""Least squares, in CycleGAN and in UNIT."""
Images = Mapping[Domain, Tensor]
"""An N 3 H W of each domain, or in each domain's look, in [-1, 1]."""


class LearntTranslator(Translator):
    """Two generators and two discriminators, one of each for each domain's look.

    Its images are in [0, 1] as those of any engine; what its networks take and give is in [-1, 1]. Once it is trained
    it needs no target.

    Args:
        generators: of each domain.
        discriminators: of each domain; each tells images of its domain from those that were made in its look.
    """

    paired = False

    def __init__(self, generators: Mapping[Domain, Generator], discriminators: Mapping[Domain, Discriminator]) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({str(domain): each for domain, each in generators.items()})
        self.discriminators = nn.ModuleDict({str(domain): each for domain, each in discriminators.items()})

    @abstractmethod
    def turn(self, image: Tensor, look: Domain) -> Tensor:
        """Images of the other domain in this domain's look, both N 3 H W in [-1, 1]."""

    @abstractmethod
    def play(self, real: Images, rng: Rng) -> Events[Event, None, None]:
        """The losses of one training step, and what is to be logged of them."""

    @abstractmethod
    def optimizer(self, player: nn.Module) -> Optimizer:
        """The optimiser of one player's networks."""

    def forward(self, source: Tensor, target: Tensor | None, rng: Rng) -> Tensor:
        """Source images in the target's look: N 3 H W in [0, 1]. Raises UsageError where the size does not fit."""
        return self._look(source, "target")

    def back(self, target: Tensor, rng: Rng) -> Tensor:
        """Target images in the source's look: N 3 H W in [0, 1]. Raises UsageError where the size does not fit."""
        return self._look(target, "source")

    def step(self, batch: Batch, iteration: int, rng: Rng) -> Events[Event, None, None]:
        """One training step on the images of both domains. Raises ValueError where one is not there.

        Panels show what the engine makes of the batch, and how it comes back.
        """
        if batch.source is None or batch.target is None:
            raise ValueError(f"{type(self).__name__} is trained on images of both domains; this stage has one alone")
        source, target = batch.source.image, batch.target.image
        yield from self.play({"source": SIGNED(source), "target": SIGNED(target)}, rng)
        yield from self._panels(source, target, rng)

    def optimizers(self) -> dict[str, Optimizer]:
        """Of the stage that :meth:`step` is the step of."""
        return {GENERATORS: self.optimizer(self.generators), DISCRIMINATORS: self.optimizer(self.discriminators)}

    def why_not(self, size: Size) -> str | None:
        """A reason why it cannot be trained on crops of this size, or None."""
        generator, discriminator = self._generator(), cast(Discriminator, self.discriminators["source"])
        return generator.why_not(size) or discriminator.why_not(size)

    def prepare(self, size: Size) -> None:
        """To be called once, before anything is trained or loaded: makes what depends on the crops' size.

        Raises UsageError where :meth:`why_not` has a reason.
        """
        if reason := self.why_not(size):
            raise UsageError(f"Crops of {size} (data.crop) cannot train {type(self).__name__}: {reason}.")

    def discriminate(self, real: Images, made: Images, weight: float = 1.0) -> Iterator[Event]:
        """The discriminators' loss, ``weight`` times the halved one, and the share of scores that are right.

        Args:
            real: of each domain.
            made: in each domain's look; detached here.
            weight: 1 in CycleGAN, 2 where the sum is not halved.
        """
        terms: dict[str, Tensor] = {}
        right: dict[str, Tensor] = {}
        for domain in OTHER:
            judge = self.discriminators[domain]
            both = judge(real[domain]), judge(made[domain].detach())
            terms[domain], right[domain] = weight * discriminator_loss(*both, FORM), accuracy(*both, FORM)
        yield loss_of(DISCRIMINATORS, terms)
        for name, share in right.items():
            yield Scalar(f"discriminator/accuracy_{name}", share)

    def _generator(self) -> Generator:
        """One of the two; they take the same sizes."""
        return cast(Generator, self.generators["source"])

    def _look(self, image: Tensor, look: Domain) -> Tensor:
        # A generator rounds another size up to whole cells, and the labels would no longer fit.
        if reason := self._generator().why_not(Size(*image.shape[-2:])):
            raise UsageError(f"{type(self).__name__} cannot translate: {reason}.")
        return unsigned(self.turn(SIGNED(image), look).to(image.dtype))

    def _panels(self, source: Tensor, target: Tensor, rng: Rng) -> Iterator[Panel]:
        yield Panel("source", lambda: source)
        yield Panel("source_as_target", lambda: self(source, None, rng))
        yield Panel("source_cycled", lambda: self.back(self(source, None, rng), rng))
        yield Panel("target", lambda: target)
        yield Panel("target_as_source", lambda: self.back(target, rng))
        yield Panel("target_cycled", lambda: self(self.back(target, rng), None, rng))


def loss_of(player: str, terms: Mapping[str, Tensor]) -> Loss:
    """The sum of the terms, which trains the player alone."""
    value = torch.stack(list(terms.values())).sum()
    return Loss(player, value, player, {name: term.detach() for name, term in terms.items()})
