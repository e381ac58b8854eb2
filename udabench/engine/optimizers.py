"""A stage's optimisers: built from their declarations, fed by losses, stepped, scheduled, stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.optimizer import Optimizer as TorchOptimizer

from udabench.engine.gradients import check_graph, check_value, explain_backward, watch_gradients
from udabench.engine.ranks import average_gradients, fed_anywhere
from udabench.errors import CheckpointError, PluginError
from udabench.method import Loss, Optimizer, Stage

KINDS: Mapping[str, type[TorchOptimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


class Optimizers:
    """One step is ``begin``, ``backward`` and ``update`` as events come, ``finish``.

    With several processes the gradients of their ranks are averaged before an optimiser is stepped. Infinite ones are
    then infinite on every rank, so that the scalers of all pass over the same steps.
    """

    def __init__(self, stage: Stage, scaler: GradScaler) -> None:
        self.stage = stage
        self.scaler = scaler
        self.built = {name: build(name, declared, stage.name) for name, declared in stage.optimizers.items()}
        self._base = {name: [group["lr"] for group in built.param_groups] for name, built in self.built.items()}
        self._fed: dict[str, None] = {}
        self._updated: set[str] = set()
        self._known: set[str] = set()
        self._scaled = False

    def begin(self, iteration: int) -> None:
        """Set the learning rates of 0-based ``iteration`` and drop the last step's gradients."""
        for name, optimizer in self.built.items():
            factor = self.stage.optimizers[name].schedule.factor(iteration, self.stage.iterations)
            for group, base in zip(optimizer.param_groups, self._base[name], strict=True):
                group["lr"] = base * factor
            optimizer.zero_grad(set_to_none=True)
        self._fed.clear()
        self._updated.clear()
        self._scaled = False

    def backward(self, loss: Loss, micro_batches: int = 1) -> None:
        """Gradients into the parameters of the optimisers that ``loss`` names, and into no others.

        Raises:
            PluginError: an unknown optimiser, a value that cannot be back-propagated, a gradient that goes nowhere.
        """
        names, parameters = self._named(loss)
        check_value(loss)
        if not loss.value.requires_grad:
            return
        value = loss.value if micro_batches == 1 else loss.value / micro_batches
        value = self.scaler.scale(value)
        with explain_backward(loss):
            if loss.name in self._known:
                torch.autograd.backward(value, inputs=parameters)
            else:
                check_graph(loss)
                with watch_gradients(loss, parameters):
                    torch.autograd.backward(value, inputs=parameters)
                self._known.add(loss.name)
        self._fed.update(dict.fromkeys(names))

    def update(self, name: str) -> None:
        """Step one optimiser now; what it receives afterwards is a new gradient."""
        self._check_known(name, "An Update")
        self._step(name)
        self._fed.pop(name, None)
        self._updated.add(name)
        self.built[name].zero_grad(set_to_none=True)

    def finish(self) -> None:
        """Step those that received a gradient, on any rank, then let the scaler adapt."""
        fed = fed_anywhere([name in self._fed for name in self.built])
        for name, there in zip(self.built, fed, strict=True):
            if there:
                self._step(name)
        if self._scaled:
            self.scaler.update()

    def rates(self) -> dict[str, float]:
        """The present learning rate of each optimiser's first group."""
        return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self.built.items()}

    def state(self) -> dict[str, Tensor]:
        """All state as ``<optimiser>.<parameter's index>.<key>``."""
        return {
            f"{name}.{index}.{key}": value
            for name, optimizer in self.built.items()
            for index, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
            if isinstance(value, Tensor)
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave. Raises CheckpointError when it belongs to other parameters."""
        states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self.built}
        for key, value in tensors.items():
            name, index, field = key.rsplit(".", 2)
            if name not in states:
                raise CheckpointError(
                    f"The checkpoint holds an optimiser '{name}'; stage '{self.stage.name}' has "
                    f"{', '.join(self.built)}. Resume with the method's version that wrote it."
                )
            self._check_shape(name, int(index), field, value)
            states[name].setdefault(int(index), {})[field] = value
        for name, optimizer in self.built.items():
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": states[name], "param_groups": groups})

    def _named(self, loss: Loss) -> tuple[Sequence[str], list[nn.Parameter]]:
        names = (loss.trains,) if isinstance(loss.trains, str) else tuple(loss.trains)
        for name in names:
            self._check_known(name, f"The loss '{loss.name}'")
        parameters = {p: None for name in names for p in _parameters(self.built[name]) if p.requires_grad}
        if not parameters:
            raise PluginError(
                f"The loss '{loss.name}' trains {', '.join(names) or 'nothing'}, where no parameter requires a "
                "gradient. Unfreeze the parameters, or yield a Scalar instead of a Loss."
            )
        return names, list(parameters)

    def _check_known(self, name: str, who: str) -> None:
        if name not in self.built:
            raise PluginError(
                f"{who} names the optimiser '{name}'; stage '{self.stage.name}' has {', '.join(self.built) or 'none'}."
            )

    def _check_shape(self, name: str, index: int, field: str, value: Tensor) -> None:
        parameters = _parameters(self.built[name])
        if index >= len(parameters) or (value.dim() > 0 and value.shape != parameters[index].shape):
            raise CheckpointError(
                f"The checkpoint's optimiser '{name}' does not fit: {field} of parameter {index} has shape "
                f"{tuple(value.shape)}. It was written with another network."
            )

    def _step(self, name: str) -> None:
        optimizer = self.built[name]
        average_gradients(_parameters(optimizer))
        # GradScaler raises where there is no gradient at all.
        if all(p.grad is None for p in _parameters(optimizer)):
            return
        if not self.scaler.is_enabled():
            optimizer.step()
            return
        if name in self._updated:
            raise PluginError(
                f"Optimiser '{name}' received a loss after its Update in the same step, which float16's loss scaling "
                "does not allow. Use engine.precision = bfloat16 or float32."
            )
        self.scaler.step(optimizer)
        self._scaled = True


def build(name: str, declared: Optimizer, stage: str) -> TorchOptimizer:
    """The torch optimiser of a declaration. Raises PluginError."""
    groups: list[dict[str, Any]] = [
        {"params": list(group.parameters), "lr": group.lr, "weight_decay": group.weight_decay}
        for group in declared.groups
    ]
    kind = KINDS.get(declared.kind)
    if kind is None:
        raise PluginError(f"Optimiser '{name}' of stage '{stage}' is a '{declared.kind}'. Known: {', '.join(KINDS)}.")
    try:
        return kind(groups, **declared.options)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"Optimiser '{name}' of stage '{stage}' ({declared.kind}) cannot be built: {error}"
        ) from error


def make_scaler(precision: str, device: torch.device, state: Mapping[str, Any] | None = None) -> GradScaler:
    """The run's one loss scaler; it does nothing but for float16."""
    scaler = GradScaler(device.type, enabled=precision == "float16")
    if scaler.is_enabled() and state:
        scaler.load_state_dict(dict(state))
    return scaler


def _parameters(optimizer: TorchOptimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
