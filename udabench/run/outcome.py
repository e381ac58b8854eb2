"""What a run ends with: its record, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from udabench.engine.folder import RunFolder
from udabench.engine.train import TrainResult
from udabench.method import Method
from udabench.results import AncestorInfo, Cost, NetworkInfo, Record, Scored, make_record, write_record
from udabench.run.plan import Plan
from udabench.world import leads, world_size


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    folder: Path
    record: Record


@dataclass(frozen=True)
class Scores:
    """What an evaluation found, and what a reader must know of it; see :func:`udabench.results.make_record`."""

    scored: Sequence[Scored]
    made: int
    cost: Cost
    lists: Mapping[str, str]
    collapse: Sequence[str] = ()
    resumed: int = 0
    lossy_store: bool = False
    imported: str | None = None
    passes: Sequence[tuple[str, int, Mapping[str, float]]] = ()
    ancestor: AncestorInfo | None = None


def ancestor_of(folder: RunFolder) -> AncestorInfo | None:
    """The run that a run folder's run began from."""
    stored = folder.read_run().get("ancestor")
    return None if stored is None else AncestorInfo(**stored)


def cost_of(result: TrainResult, scored: Sequence[Scored], evaluation_seconds: float) -> Cost:
    """The cost of a training and of the evaluations at its end."""
    return Cost(
        iterations=result.iterations,
        images=result.images_seen,
        wall_seconds=result.wall_seconds + evaluation_seconds,
        step_seconds=result.step_seconds,
        data_wait=result.wait_share,
        peak_memory=result.peak_memory,
        evaluation_seconds=scored[0].evaluation.seconds,
    )


def write_outcome(plan: Plan, folder: Path, name: str, method: Method, device: torch.device, scores: Scores) -> Record:
    """The record of what was scored, written beside its matrices."""
    network = method.network_of_record()
    chosen = plan.config.network
    parameters = sum(p.numel() for p in network.parameters())
    record, matrices = make_record(
        run=name,
        task=plan.task,
        resolved=plan.resolved,
        scored=scores.scored,
        evaluations_made=scores.made,
        network=NetworkInfo.of(chosen.name, chosen.weights, parameters, network.reports),
        cost=scores.cost,
        device=device_name(device),
        lists=scores.lists,
        target_labels=method.target_labels,
        translated_input=method.translated_input,
        lossy_store=scores.lossy_store,
        collapse=scores.collapse,
        resumed=scores.resumed,
        imported=scores.imported,
        passes=scores.passes,
        ancestor=scores.ancestor,
    )
    if leads():
        write_record(folder, record, matrices)
    return record


def device_name(device: torch.device) -> str:
    """``cuda (NVIDIA ...)`` or ``cpu``, with the number of processes where there are several."""
    name = f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
    return name if world_size() == 1 else f"{world_size()} x {name}"
