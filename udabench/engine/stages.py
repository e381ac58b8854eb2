"""A method's declarations, checked, and whether a checkpoint belongs to them."""

from __future__ import annotations

from collections.abc import Sequence

from udabench.config import RunConfig
from udabench.engine.artefacts import checked
from udabench.engine.checkpoint import Checkpoint
from udabench.errors import CheckpointError, PluginError, UsageError
from udabench.method import Method, Stage


def read_stages(method: Method, config: RunConfig) -> list[Stage]:
    """The method's stages. Raises PluginError when they break the contract, UsageError on forbidden accumulation."""
    stages = list(method.stages())
    who = type(method).__name__
    names = [checked(stage.name) for stage in stages]
    if not stages or len(set(names)) < len(names):
        raise PluginError(
            f"{who}.stages() gave the names {names}; there must be one stage at least, and no name twice."
        )
    for stage in stages:
        if stage.iterations < (1 if stage.prepare is None else 0):
            raise PluginError(
                f"{who}'s stage '{stage.name}' has {stage.iterations} iterations; use 1 or more, or 0 for a stage that "
                "only prepares."
            )
        if stage.prepare_every is not None and stage.prepare_every < 1:
            raise PluginError(f"{who}'s stage '{stage.name}': prepare_every must be 1 or more.")
        if not 0 < stage.source_share <= 1:
            raise PluginError(f"{who}'s stage '{stage.name}': source_share must be above 0 and at most 1.")
        if stage.mining is not None and stage.mining.layer not in stage.layers:
            raise PluginError(
                f"{who}'s stage '{stage.name}' mines the layer '{stage.mining.layer}', which is none of its layers "
                f"({', '.join(stage.layers) or 'it has none'})."
            )
    if config.engine.accumulate > 1 and not method.accumulates:
        raise UsageError(
            f"engine.accumulate = {config.engine.accumulate}, but {who} is not the same method under gradient "
            "accumulation (an EMA or statistics of the batch). Use engine.accumulate = 1 and a smaller batch or crop."
        )
    return stages


def run_identity(config: RunConfig) -> str:
    """What a checkpoint belongs to: the experiment and its seed."""
    return f"{config.hash}-s{config.seed}"


def check_checkpoint(checkpoint: Checkpoint, stages: Sequence[Stage], config: RunConfig) -> None:
    """Raises CheckpointError when it was written by another experiment, or by other stages."""
    identity = checkpoint.state["identity"]
    if identity != run_identity(config):
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} belongs to the configuration {identity}, not to {run_identity(config)}. "
            "Resume with the values that the run was started with."
        )
    index, name = checkpoint.state["counters"]["stage"], checkpoint.state["counters"]["stage_name"]
    if index >= len(stages) or stages[index].name != name:
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} was written in stage {index} '{name}'; the method has "
            f"{', '.join(stage.name for stage in stages)}. Resume with the method's version that wrote it."
        )


def enter(method: Method, index: int) -> None:
    """Do what is done when a stage begins; those before it have been entered."""
    start = method.stages()[index].start
    if start is not None:
        start()
