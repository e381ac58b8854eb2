"""Output alignment: discriminators tell the domains apart by what a segmenter predicts, and it learns to hide them.

Tsai et al. 2018 (AdaptSegNet) judge class probabilities, Vu et al. 2019 (ADVENT) self-information; BDL, and LDR in the
first term of its objective, judge class probabilities at a single level.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.errors import UsageError
from udabench.method import Event, Group, Loss, Optimizer, Panel, Samples, Scalar
from udabench.network import Output
from udabench.networks.discriminator import Discriminator, FullyConvolutionalDiscriminator, Verdict
from udabench.parts.adversarial import accuracy, judging_loss
from udabench.parts.entropy import self_information
from udabench.parts.losses import upsample
from udabench.schedules import Schedule
from udabench.size import Size

Space = Literal["probability", "self_information"]
"""What is judged: class probabilities (AdaptSegNet, BDL, LDR), or each class's self-information (ADVENT)."""
Labels = Literal["bce", "lsgan"]
"""Forms of the loss whose labels are numbers, 0 and 1."""
Terms = tuple[Tensor, Mapping[str, Tensor]]
"""A loss, and its summands for the log, detached."""

LABEL = {"source": False, "target": True}
"""0 is the source's label and 1 the target's, as in the code of AdaptSegNet and ADVENT."""
LEVELS = ("", "_auxiliary")
"""How the log names what belongs to a level."""
OPTIMIZER = "discriminator"
"""The name of the discriminators' optimiser in a stage."""


def probability(logits: Tensor) -> Tensor:
    """Softmax over the classes, in float32 at least: N C h w -> N C h w."""
    return logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))


MAPS: Mapping[Space, Callable[[Tensor], Tensor]] = {"probability": probability, "self_information": self_information}


class Prediction(NamedTuple):
    """What a network says of one domain's images.

    Attributes:
        levels: logits N C h w, the main ones first, then those of auxiliary heads.
        size: height and width of the images.
        valid: N H W bool, False on padding; None: there is none.
    """

    levels: tuple[Tensor, ...]
    size: tuple[int, ...]
    valid: Tensor | None = None

    def detach(self) -> Prediction:
        """The same without its graph: what discriminators learn from."""
        return self._replace(levels=tuple(logits.detach() for logits in self.levels))


def predicted(output: Output, samples: Samples) -> Prediction:
    """The prediction of a network's output. Heads that see a part of the image alone (HRDA's) are no level."""
    further = (head.logits for head in output.heads if head.box is None)
    return Prediction((output.logits, *further), tuple(samples.image.shape[-2:]), samples.valid)


class OutputAlignment(nn.Module):
    """A discriminator for each level of a prediction, and the losses of both players.

    The segmenter pays ``sum_i lambda_i * L(D_i(map_i(x_t)), 0)``: its predictions on the target shall pass for the
    source's. Each discriminator pays ``(L(D_i(map_i(x_s)), 0) + L(D_i(map_i(x_t)), 1)) / 2`` on the same predictions,
    detached (the code of AdaptSegNet and ADVENT; LDR Eq 2). A map is made of logits upsampled to the image. Padding is
    0 in it for both domains, as what a discriminator's convolutions see beyond the image.

    Args:
        classes: C, channels of a map.
        weights: lambda of each level, the main one's first.
        space: see :data:`Space`.
        form: ``bce``, or ``lsgan``, least squares to the same labels.
        width: channels of a discriminator's first layer; 64 in the papers.
    """

    def __init__(
        self,
        classes: int,
        weights: Sequence[float],
        space: Space = "probability",
        form: Labels = "bce",
        width: int = 64,
    ) -> None:
        super().__init__()
        self.weights, self.space, self.form = tuple(weights), space, form
        self.discriminators = nn.ModuleList(FullyConvolutionalDiscriminator(classes, width) for _ in weights)

    def check(self, size: Size) -> None:
        """Raises UsageError where maps of this size leave a discriminator nothing to judge."""
        reason = cast(Discriminator, self.discriminators[0]).why_not(size)
        if reason:
            raise UsageError(f"Crops of {size} (data.crop) cannot be aligned: {reason}.")

    def optimizer(self, lr: float, betas: tuple[float, float], schedule: Schedule) -> Optimizer:
        """Adam over all discriminators; its steps are those of an Adam for each."""
        return Optimizer("adam", [Group(tuple(self.parameters()), lr)], {"betas": betas}, schedule)

    def judge(self, prediction: Prediction) -> list[Verdict]:
        """What each discriminator says of its level, on whatever graph the prediction has."""
        maps = (self._map(logits, prediction) for logits in prediction.levels)
        # A network may have more levels than are aligned.
        return [discriminator(each) for discriminator, each in zip(self.discriminators, maps, strict=False)]

    def _map(self, logits: Tensor, prediction: Prediction) -> Tensor:
        seen = MAPS[self.space](upsample(logits, prediction.size))
        return seen if prediction.valid is None else seen * prediction.valid.unsqueeze(1)

    def hiding_loss(self, target: Prediction) -> Terms:
        """What the segmenter pays for being told apart; its parts are not yet weighted.

        The gradient also leads into the discriminators: the Loss that it goes into must not train them.
        """
        losses = [judging_loss(verdict, LABEL["source"], self.form) for verdict in self.judge(target)]
        value = torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=False)]).sum()
        return value, _named("adversarial", (loss.detach() for loss in losses))

    def learn(self, source: Prediction, target: Prediction) -> Generator[Event, None, None]:
        """The discriminators' losses, source first, each freed before the next; then what they got right.

        Args:
            source, target: of the segmenter's own step; detached here.
        """
        verdicts: dict[str, list[Verdict]] = {}
        for domain, prediction in (("source", source), ("target", target)):
            judged = self.judge(prediction.detach())
            losses = [judging_loss(verdict, LABEL[domain], self.form) / 2 for verdict in judged]
            parts = _named("judged", (loss.detach() for loss in losses))
            verdicts[domain] = [_scores_alone(verdict) for verdict in judged]
            yield Loss(f"discriminator_{domain}", torch.stack(losses).sum(), OPTIMIZER, parts)
        right = [
            accuracy(there, here, self.form) for there, here in zip(verdicts["target"], verdicts["source"], strict=True)
        ]
        for name, value in _named("discriminator/accuracy", right).items():
            yield Scalar(name, value)
        yield self._panel("judged_source", verdicts["source"][0], source.size)
        yield self._panel("judged_target", verdicts["target"][0], target.size)

    def _panel(self, name: str, verdict: Verdict, size: tuple[int, ...]) -> Panel:
        """How much like the target each patch of the main level looks, N H W in [0, 1]."""
        score = verdict.scores[0].float()
        belief = score.clamp(0, 1) if self.form == "lsgan" else score.sigmoid()
        return Panel(name, lambda: F.interpolate(belief, size)[:, 0])


def _named(name: str, values: Iterable[Tensor]) -> dict[str, Tensor]:
    return {name + level: value for level, value in zip(LEVELS, values, strict=False)}


def _scores_alone(verdict: Verdict) -> Verdict:
    """Without the hidden layers' maps, which are large."""
    return Verdict(tuple(score.detach() for score in verdict.scores), ())
