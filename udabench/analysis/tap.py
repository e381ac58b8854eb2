"""Listens to the networks of a method while one of its predictors runs: any method, no line of it changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from udabench.errors import UsageError
from udabench.method import Method
from udabench.network import Network, Output


class Tap:
    """What the outermost networks returned, in the order of their calls."""

    def __init__(self) -> None:
        self.heard: list[tuple[Network, Output]] = []
        self._depth = 0

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._depth += 1

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._depth -= 1
        # A network in a network (HRDA) tells of a part of the image only.
        if self._depth == 0 and isinstance(module, Network) and isinstance(output, Output):
            self.heard.append((module, output))

    def take(self, method: Method) -> Output:
        """What the network of record returned, else the first one that was called; forgets the rest.

        Raises:
            UsageError: no network was called.
        """
        heard, self.heard = self.heard, []
        if not heard:
            raise UsageError(
                f"The predictor of {type(method).__name__} calls no network as a whole, so that there is no map of "
                "features to be had. Take --features logits."
            )
        record = method.network_of_record()
        return next((output for network, output in heard if network is record), heard[0][1])


@contextmanager
def tapped(method: Method) -> Iterator[Tap]:
    """A tap on every network of a method, for the length of the block."""
    tap = Tap()
    with ExitStack() as hooks:
        for network in (module for module in method.modules() if isinstance(module, Network)):
            hooks.callback(network.register_forward_pre_hook(tap._enter).remove)
            hooks.callback(network.register_forward_hook(tap._leave).remove)
        yield tap
