"""What a discriminator and its generator are trained by: BCE, least squares or hinge; feature matching; the pool.

A score is a logit, the higher the more real. All means run over equal parts of the batch, so that the average of the
ranks is the mean of the whole batch (see :mod:`udabench.world`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Generator as Rng
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.networks.discriminator import Verdict
from udabench.size import Size
from udabench.world import gather, own

Form = Literal["bce", "lsgan", "hinge"]
"""``bce``: log-loss (Goodfellow et al. 2014, the generator's side non-saturating); ``lsgan``: least squares to 1 and 0
(Mao et al. 2017); ``hinge``: margins at 1 and -1 (Lim and Ye 2017)."""


def judging_loss(verdict: Verdict, real: bool, form: Form = "bce") -> Tensor:
    """What a discriminator pays for its scores of a batch that is all real, or all made: the mean, summed over scales.

    AdaptSegNet's labels are 0 for the source and 1 for the target: with ``bce`` that is the source as real, and the
    scores' sign turned.
    """
    return _sum(_judged(score.float(), real, form) for score in verdict.scores)


def discriminator_loss(real: Verdict, fake: Verdict, form: Form = "bce") -> Tensor:
    """Half the sum of both sides, as in AdaptSegNet, CycleGAN and pix2pixHD (LDR Eq 2 and 4, negated and halved)."""
    return (judging_loss(real, True, form) + judging_loss(fake, False, form)) / 2


def generator_loss(fake: Verdict, form: Form = "bce") -> Tensor:
    """What a generator pays for a discriminator's scores of what it made; summed over scales."""
    if form == "hinge":
        return _sum(-score.float().mean() for score in fake.scores)
    return judging_loss(fake, True, form)


def feature_matching(fake: Verdict, real: Verdict, factor: float = 4.0) -> Tensor:
    """L1 between the hidden layers' features; the real ones are a fixed goal.

    Every layer's mean counts ``factor`` / (number of hidden layers) / (number of scales): pix2pixHD's weights, where
    LDR's Eq 5 has none. The scores take no part.
    """
    scales = [
        factor / len(made) * _sum(distance(a, b) for a, b in zip(made, goal, strict=True))
        for made, goal in zip(fake.features, real.features, strict=True)
    ]
    return _sum(scales) / len(scales)


def distance(features: Tensor, goal: Tensor) -> Tensor:
    """Mean absolute difference, in float32; no gradient goes into the goal."""
    return F.l1_loss(features.float(), goal.detach().float())


@torch.no_grad()
def accuracy(real: Verdict, fake: Verdict, form: Form = "bce") -> Tensor:
    """The share of scores on the right side of the middle, averaged over scales: 0.5 is a discriminator that guesses,
    1 one that has won."""
    middle = 0.5 if form == "lsgan" else 0.0
    right = [(score > middle).float().mean() for score in real.scores]
    right += [(score < middle).float().mean() for score in fake.scores]
    return torch.stack(right).mean()


class ImagePool(nn.Module):
    """Made images from earlier steps, so that a discriminator does not see the newest ones alone (Shrivastava 2017).

    Until it is full, an image is kept and handed back. Then half of the time it is handed back, and else it takes the
    place of a kept one, which is handed back instead. Kept images are buffers: a resumed run goes on with them. The
    pool is that of the whole batch, and the same on every rank.

    Args:
        capacity: images that are kept; 50 in CycleGAN; 0: none, each is handed back.
        channels: of an image, a label map that it is joined with included.
        size: height and width.
    """

    images: Tensor
    held: Tensor

    def __init__(self, capacity: int, channels: int, size: Size) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.zeros(capacity, channels, *size))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor, rng: Rng) -> Tensor:
        """N C H W -> as many, detached, some from earlier steps.

        Args:
            images: this rank's.
            rng: CPU generator, in the same state on every rank.
        """
        if not self.capacity:
            return images.detach()
        whole = gather(images.to(self.images.dtype))
        chances, places = torch.rand(2, len(whole), generator=rng).to(whole.device)
        swaps, slots = chances > 0.5, (places * self.capacity).long()
        handed = [self._swap(*each) for each in zip(whole, swaps, slots, strict=True)]
        return own(torch.stack(handed)).to(images.dtype)

    def _swap(self, image: Tensor, swap: Tensor, slot: Tensor) -> Tensor:
        """Decided where the images are: to ask the device how many are held would wait for it."""
        filling = self.held < self.capacity
        place = torch.where(filling, self.held, slot).view(1)
        kept = self.images.index_select(0, place)[0]
        self.images.index_copy_(0, place, torch.where(filling | swap, image, kept).unsqueeze(0))
        self.held.add_(filling)
        return torch.where(filling | ~swap, image, kept)


def _judged(score: Tensor, real: bool, form: Form) -> Tensor:
    if form == "hinge":
        return F.relu(1 - score if real else 1 + score).mean()
    goal = torch.full_like(score, float(real))
    return F.mse_loss(score, goal) if form == "lsgan" else F.binary_cross_entropy_with_logits(score, goal)


def _sum(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
