"""What can go wrong between a loss and a parameter, and is silent in torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from udabench.errors import PluginError
from udabench.method import Loss


def check_value(loss: Loss) -> None:
    """Raises PluginError unless the value is a scalar with a gradient, or a plain zero (nothing to train on)."""
    value = loss.value
    if not isinstance(value, Tensor) or value.dim() != 0:
        what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise PluginError(
            f"The loss '{loss.name}' must be a scalar tensor; it is {what}. Reduce it with mean() or sum()."
        )
    if not value.requires_grad and value.item() != 0:
        raise PluginError(
            f"The loss '{loss.name}' is {value.item():g} but depends on no parameter that requires a gradient. "
            "Compute it outside of no_grad, or yield a Scalar."
        )


def check_graph(loss: Loss) -> None:
    """Raises PluginError on reentrant activation checkpointing: with named inputs it gives no gradient, silently."""
    seen, waiting = set(), [loss.value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            raise PluginError(
                f"The loss '{loss.name}' goes through torch.utils.checkpoint with use_reentrant=True, which would give "
                "no gradient here. Use use_reentrant=False."
            )
        waiting.extend(successor for successor, _ in node.next_functions)


@contextmanager
def watch_gradients(loss: Loss, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Raises PluginError when a backward in the block reaches none of the parameters."""
    reached: list[bool] = []

    def note(parameter: Tensor) -> None:
        reached.append(True)

    hooks = [p.register_post_accumulate_grad_hook(note) for p in parameters]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if not reached:
        raise PluginError(
            f"The loss '{loss.name}' reached no parameter of {loss.trains}. Does it go through another network, or "
            "through no_grad?"
        )


@contextmanager
def explain_backward(loss: Loss) -> Iterator[None]:
    """Names the loss where torch says that its graph is gone."""
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise PluginError(
            f"The loss '{loss.name}' shares a graph with one that was yielded before it and is freed. "
            "Sum losses of one graph into one Loss and give the summands as parts."
        ) from error
