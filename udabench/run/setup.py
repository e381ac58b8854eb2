"""What a method is built from: networks, translators and other methods by name. It holds no data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from udabench.config import MethodConfig, OptimConfig, RunConfig
from udabench.errors import PluginError, UsageError
from udabench.method import Domain, Group, Method, Optimizer
from udabench.network import Network
from udabench.networks.build import build_network
from udabench.networks.weights import NONE, load_state
from udabench.registry import Registry
from udabench.resolve import Layer, resolve
from udabench.run.nesting import find_methods
from udabench.run.plan import Plan
from udabench.schedules import PolySchedule, Schedule, StepSchedule
from udabench.size import Size
from udabench.task import Task
from udabench.translate.base import Translator
from udabench.translate.build import build_translator


@dataclass(frozen=True)
class Initial:
    """A network's weights out of another run.

    Attributes:
        source: what a record calls them.
        digest: of the run that they come from.
    """

    state: Mapping[str, Tensor]
    source: str
    digest: str


class RunSetup:
    """The :class:`udabench.method.Setup` of a run.

    Registry and configuration lead to folders of data; they are not a method's to read.

    Args:
        initial: the weights that networks begin with instead of the configured ones.
        bare: leave networks at random values: nothing is fetched or read for them.
    """

    def __init__(
        self, registry: Registry, config: RunConfig, task: Task, initial: Initial | None = None, bare: bool = False
    ) -> None:
        self._registry = registry
        self._config = config
        self._task = task
        self._initial = initial
        self._bare = bare

    @property
    def task(self) -> Task:
        return self._task

    @property
    def iterations(self) -> int:
        return self._config.iterations

    @property
    def optim(self) -> OptimConfig:
        return self._config.optim

    @property
    def crop(self) -> Size:
        return self._config.data.crop

    @property
    def target_size(self) -> Size:
        size = self._config.data.target_size
        if size is None:
            raise ValueError("the configuration is resolved without data sets")
        return size

    @property
    def batches(self) -> Mapping[Domain, int]:
        return {"source": self._config.data.source_batch, "target": self._config.data.target_batch}

    def network(self, weights: str | None = None, options: Mapping[str, Any] | None = None) -> Network:
        begin = self._initial if weights is None and not self._bare else None
        configured = self._config.network
        chosen = NONE if self._bare or begin is not None else weights or configured.weights
        options = {**configured.options, **(options or {})}
        network = build_network(self._registry, configured.name, len(self.task.classes), chosen, options)
        if begin is not None:
            network.reports = (load_state(network, begin.state, begin.source, digest=begin.digest, threshold=1.0),)
        return network

    def translator(self, name: str, options: Mapping[str, Any] | None = None) -> Translator:
        return build_translator(self._registry.translators, name, options or {})

    def method(
        self, name: str, values: Mapping[str, Any] | MethodConfig | None = None, iterations: int | None = None
    ) -> Method:
        method: type[Method] = self._registry.methods.get(name)
        if not isinstance(values, method.Config):
            stated = values.model_dump() if isinstance(values, MethodConfig) else dict(values or {})
            values = self._settings(name, stated)
        return build_method(method, values, self if iterations is None else self._shortened(iterations))

    def _shortened(self, iterations: int) -> RunSetup:
        config = self._config.model_copy(update={"iterations": iterations})
        return RunSetup(self._registry, config, self._task, self._initial, self._bare)

    def _settings(self, name: str, values: Mapping[str, Any]) -> MethodConfig:
        """The validated values of a method. Raises UsageError with all problems."""
        layers = [Layer(f"inner method {name}", {"settings": values})]
        return resolve(find_methods(self._registry, name, layers).settings, layers).config.settings

    def segmenter(self, network: Network, *heads: nn.Module) -> Optimizer:
        optim, factors = self._config.optim, network.rate_factors()
        groups = [
            Group(
                tuple(parameters),
                lr=optim.lr * (optim.head_lr_factor if role.startswith("head") else 1.0) * factors.get(role, 1.0),
                weight_decay=optim.weight_decay if optim.decay_norms or not role.endswith("_norm") else 0.0,
            )
            for role, parameters in network.parameter_groups().items()
            if parameters
        ]
        for head in heads:
            parameters = tuple(p for p in head.parameters() if p.requires_grad)
            groups.append(Group(parameters, optim.lr * optim.head_lr_factor, optim.weight_decay))
        return Optimizer(optim.kind, groups, _options(optim), _schedule(optim))


def bare_method(plan: Plan, config: RunConfig | None = None) -> Method:
    """A plan's method with random weights: for what it declares, or to be filled from a checkpoint.

    ``config``: another one than the plan's.
    """
    config = config or plan.config
    return build_method(plan.method, config.settings, RunSetup(plan.registry, config, plan.task, bare=True))


def _schedule(optim: OptimConfig) -> Schedule:
    if optim.step_every is not None:
        return StepSchedule(optim.step_every, optim.step_gamma, optim.warmup, optim.warmup_ratio)
    return PolySchedule(optim.warmup, optim.warmup_ratio, optim.power, optim.horizon)


def _options(optim: OptimConfig) -> dict[str, Any]:
    if optim.kind == "sgd":
        return {"momentum": optim.momentum}
    return {"betas": (optim.momentum, optim.beta2)}


def build_method(method: type[Method], config: Any, setup: RunSetup) -> Method:
    """Construct a method; raises UsageError where it declines the task, PluginError where it is no method."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise PluginError(f"{method!r} is registered as a method but is no subclass of udabench.Method.")
    reason = method.why_not(setup.task, setup._config.network.name)
    if reason:
        raise UsageError(f"{method.__name__} cannot run {setup.task.name} with {setup._config.network.name}: {reason}")
    return method(config, setup)


def check_crop(method: Method, config: RunConfig) -> None:
    """Raises UsageError where the method's network cannot be trained on the configured crops."""
    crop = config.data.crop
    reason = method.network_of_record().why_not(crop)
    if reason:
        raise UsageError(f"Network {config.network.name} cannot be trained on crops of {crop} (data.crop): {reason}.")
