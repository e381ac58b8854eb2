"""A method around a method: all is the inner one's but what a subclass changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from udabench.config import WrapperConfig
from udabench.errors import UsageError
from udabench.method import Method, Samples, Setup, Stage, Step
from udabench.network import Network


class Wrapper(Method):
    """Runs the inner method's stages with :meth:`wrap` around their steps.

    The inner method draws from a step's ``rng`` before the wrapper does, so that it does what it would do alone.
    """

    Config = WrapperConfig
    config: WrapperConfig
    needs_shared: ClassVar[bool] = False
    """Whether it trains on what inner steps return: :class:`udabench.method.Shared`."""
    needs_outputs: ClassVar[bool] = False
    """Whether it adds to the losses of inner steps: :attr:`udabench.method.Loss.outputs`."""

    def __init__(self, config: WrapperConfig, setup: Setup, iterations: int | None = None) -> None:
        """``iterations``: how many of the run's steps are the inner method's; None: all."""
        super().__init__(config, setup)
        self.config = config
        self.inner = setup.method(config.inner, config.inner_settings, iterations)
        self.target_labels = self.inner.target_labels
        self.accumulates = self.inner.accumulates
        self.shares = self.inner.shares
        self.outputs = self.inner.outputs
        self.advice = self.inner.advice
        if self.needs_shared and not self.inner.shares:
            raise UsageError(
                f"{config.inner} with these settings has no pseudo-labels that a method around it could use."
            )
        if self.needs_outputs and not self.inner.outputs:
            raise UsageError(f"{config.inner} with these settings hands out no logits that a loss could be added to.")

    @classmethod
    def why_not_around(cls, inner: type[Method]) -> str | None:
        """A reason not to wrap a method, or None."""
        if cls.needs_shared and not inner.shares and not issubclass(inner, Wrapper):
            return "it makes no pseudo-labels that a method around it could train on."
        if cls.needs_outputs and not inner.outputs and not issubclass(inner, Wrapper):
            return "its losses do not hand out the logits that a term could be added for (Method.outputs)."
        return None

    def wrap(self, step: Step) -> Step:
        """What takes the place of an inner step."""
        return step

    def stages(self) -> Sequence[Stage]:
        return [
            replace(stage, step=self.wrap(stage.step)) if stage.iterations else stage for stage in self.inner.stages()
        ]

    def predict(self, samples: Samples) -> Tensor:
        return self.inner.predict(samples)

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        return self.inner.predictors()

    def look(self, samples: Samples) -> Samples:
        return self.inner.look(samples)

    @property
    def translated_input(self) -> bool:
        return self.inner.translated_input

    def network_of_record(self) -> Network:
        return self.inner.network_of_record()
