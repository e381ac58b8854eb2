"""A run whose logits grow without end is stopped while its last checkpoint is still sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from udabench.errors import UserError
from udabench.network import Output
from udabench.world import total, world_size
from udabench_sam.config import AttentionConfig

EVERY = 50
"""Steps between two looks on a GPU, which is waited for."""


class Diverged(UserError):
    """The self-attention loss drives the logits out of all bounds."""


@dataclass(frozen=True)
class DivergenceGuard:
    """Holds the mean of |Z| against ``sa_limit``.

    With Eq 8 on logits both Z cancel: the loss pushes each logit on along the sign of its attended value, wherever it
    is, and no other loss asks for an end where that is the right class.
    """

    config: AttentionConfig

    def see(self, size: Tensor, domain: str, iteration: int) -> None:
        """Before the step's gradient. Every rank calls it alike.

        Args:
            size: 0-d, this rank's mean of |Z|.
            domain: whose Z.
            iteration: of the stage.

        Raises:
            Diverged: the mean over the ranks is above the limit, or no number.
        """
        if size.device.type != "cpu" and iteration % EVERY:
            return
        mean = float(total(size)) / world_size()
        if not mean <= self.config.sa_limit:
            limit = f"sa_limit = {self.config.sa_limit:g}"
            raise Diverged(
                f"The logits diverge: the mean of |Z| of {domain} images is {mean:.4g} at iteration {iteration} of "
                f"this stage, above {limit}. {advice(self.config)} The last checkpoint is older than this step; a "
                "larger sa_limit lets the run go on."
            )


def logit_size(output: Output) -> Tensor:
    """The mean of |Z|, before upsampling: 0-d, detached."""
    return output.score_map.detach().float().abs().mean()


def advice(config: AttentionConfig) -> str:
    """The readings of the lost formula that a run might use instead."""
    return f"Settings whose logits grow less: {', '.join(_alternatives(config))}."


def _alternatives(config: AttentionConfig) -> Iterator[str]:
    if config.sa_space == "logits" and config.sa_loss != "kl":
        if config.sa_on == "prediction":
            yield "sa_space=probabilities"
        if config.sa_target == "skip":
            yield "sa_target=attended (Eq 9)"
        if config.sa_reduction == "pixel":
            yield "sa_reduction=mean"
    if config.sa_domains == "both":
        yield "sa_domains=target (Eq 11)"
    yield f"a smaller sa_weight than {config.sa_weight:g}"
    yield "a smaller optim.lr"
