"""SAM's self-attention loss around any method: L_inner + lambda * L_sa (section 5.5, ProDA + SAM)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.errors import UsageError
from udabench.method import Batch, Event, Loss, Method, Scalar, Setup, Stage, Step, changed
from udabench.parts.wrapper import Wrapper
from udabench_sam.addon.config import SAMAddonConfig
from udabench_sam.attention import Attentions
from udabench_sam.attention_training import attention_stage
from udabench_sam.guard import DivergenceGuard, advice, logit_size
from udabench_sam.method import SAM

SOURCE, TARGET = ("source", "translated"), ("target", "mixed")
"""The names by which methods hand out what a network says of images of a domain, the better one first."""


class SAMAddon(Wrapper):
    """Trains the module on the source with a network of its own, then adds L_sa to the losses of the method inside.

    The method inside begins from the very weights that it has alone, and draws what it draws alone.
    """

    Config = SAMAddonConfig
    config: SAMAddonConfig
    needs_outputs = True

    def __init__(self, config: SAMAddonConfig, setup: Setup) -> None:
        trained = config.sa_weight > 0 and config.module == "conv"
        length = _length(setup.iterations, config.attention_share) if trained else 0
        super().__init__(config, setup, max(1, setup.iterations - length))
        self.length = length
        self.images = tuple(self._choose()) if config.sa_weight > 0 else ()
        self.chosen = self._stages_with_loss()
        self.network = setup.network() if trained else None
        self.attentions = Attentions(self.inner.network_of_record(), config)
        self.guard = DivergenceGuard(config)
        self.advice = " ".join(text for text in (self.inner.advice, advice(config)) if text)

    @classmethod
    def why_not_around(cls, inner: type[Method]) -> str | None:
        """A reason not to wrap a method, or None."""
        return "it has this loss itself." if issubclass(inner, SAM) else super().why_not_around(inner)

    def _choose(self) -> Iterator[str]:
        """The images whose logits get the loss, one name for each domain."""
        wanted = {"source": SOURCE, "target": TARGET} if self.config.sa_domains == "both" else {"target": TARGET}
        for domain, names in wanted.items():
            found = [name for name in names if name in self.inner.outputs]
            if not found:
                raise UsageError(
                    f"{self.config.inner} with these settings hands out no logits of {domain} images (it has "
                    f"{', '.join(self.inner.outputs)}), which sa_domains={self.config.sa_domains} needs."
                )
            yield found[0]

    def _stages_with_loss(self) -> frozenset[str]:
        stages = [stage for stage in self.inner.stages() if stage.iterations]
        patterns, names = self.config.sa_stages, [stage.name for stage in stages]
        if patterns is None:
            chosen = {stage.name for stage in stages if "target" in stage.domains}
        else:
            chosen = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise UsageError(
                        f"sa_stages: {self.config.inner} has no stage '{pattern}'. It trains in {', '.join(names)}."
                    )
        if not chosen:
            raise UsageError(f"No stage of {self.config.inner} would get the loss. Name some of {', '.join(names)} "
                             "with sa_stages.")  # fmt: skip
        return frozenset(chosen)

    def stages(self) -> Sequence[Stage]:
        inner = [self._with_loss(stage) if stage.name in self.chosen else stage for stage in self.inner.stages()]
        if self.network is None:
            return inner
        return [attention_stage(self.setup, self.network, self.attentions, self.length), *inner]

    def _with_loss(self, stage: Stage) -> Stage:
        return replace(stage, step=partial(self.step, stage.step)) if self.images else stage

    def step(self, inner: Step, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, Any]:
        """The inner step with L_sa in its losses. Returns what the inner step returns."""
        sizes: dict[str, Tensor] = {}

        def change(event: Event) -> Event:
            return self._add(event, iteration, sizes) if isinstance(event, Loss) else event

        returned = yield from changed(inner(batch, iteration, rng), change)
        for name, size in sizes.items():
            yield Scalar(f"logits/{name}", size)
        return returned

    def _add(self, loss: Loss, iteration: int, sizes: dict[str, Tensor]) -> Loss:
        """The loss with the terms of those images that it was computed from."""
        terms: dict[str, Tensor] = {}
        for name in self.images:
            if (output := loss.outputs.get(name)) is not None:
                sizes[name] = logit_size(output)
                self.guard.see(sizes[name], name, iteration)
                terms[f"{name}_attention"] = self.attentions.loss(output)
        if not terms:
            return loss
        value = loss.value + self.config.sa_weight * torch.stack([*terms.values()]).sum()
        parts = {name: term.detach() for name, term in terms.items()}
        return loss._replace(value=value, parts={**loss.parts, **parts})


def _length(iterations: int, share: float) -> int:
    """The module's part of the run's steps."""
    return max(1, round(iterations * share / (1 + share)))
