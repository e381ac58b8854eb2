"""Made-up runs, recorded as real ones are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from udabench.config import MethodConfig
from udabench.evaluate.evaluator import Evaluation
from udabench.evaluate.metrics import Matrix, iou, mean_ious
from udabench.labels import LabelSpace
from udabench.network import WeightsReport
from udabench.resolve import Layer, resolve
from udabench.results import Cost, Matrices, NetworkInfo, Record, Scored, make_record
from udabench.task import Protocol, Task

THREE = LabelSpace(
    "three", ("road", "sky", "car"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), {"mIoU3": (0, 1, 2), "mIoU2*": (0, 2)}
)
TASK = Task("dream", "street", THREE, THREE.averages)
PROTOCOL = Protocol("street", "val", "ab" * 32, 2, THREE.names, "A")


def uniform(percent: int) -> Matrix:
    """Two images over which every class has an IoU of ``percent`` (even): the first all right, the second all wrong.

    Each class has ``percent`` right pixels, loses (100 - percent) / 2 to the next class and gets as many from the one
    before: percent / (percent + 100 - percent).
    """
    right = np.diag([percent] * 3)
    wrong = np.roll(np.diag([(100 - percent) // 2] * 3), 1, axis=1)
    return np.stack([right, wrong]).astype(np.int64)


def evaluation(matrices: Matrix, protocol: Protocol = PROTOCOL, task: Task = TASK) -> Evaluation:
    values = iou(matrices.sum(0))
    names = tuple(f"image_{i}" for i in range(len(matrices)))
    return Evaluation(names, matrices, values, mean_ious(values, task.evaluated), 1.5, None, protocol)


def experiment(
    method: str = "t2sda",
    seed: int = 0,
    percent: int = 60,
    *,
    values: Mapping[str, Any] | None = None,
    teacher: int | None = None,
    best: int | None = None,
    protocol: Protocol = PROTOCOL,
    task: Task = TASK,
    matrices: Matrix | None = None,
    wall: float = 3600.0,
    step: float | None = 0.25,
    target_labels: bool = False,
    collapse: Sequence[str] = (),
    resumed: int = 0,
    passes: Sequence[tuple[str, int, Mapping[str, float]]] = (),
) -> tuple[Record, Matrices]:
    """A run whose student has an IoU of ``percent`` in every class."""
    named = {"method": method, "source": task.source, "target": task.target, "seed": seed, **(values or {})}
    resolved = resolve(MethodConfig, [Layer("command line", named)])
    config = resolved.config
    found = evaluation(uniform(percent) if matrices is None else matrices, protocol, task)
    scored = [Scored(found, "student", "last", 40)]
    if teacher is not None:
        scored.append(Scored(evaluation(uniform(teacher), protocol, task), "teacher", "last", 40))
    if best is not None:
        scored.append(Scored(evaluation(uniform(best), protocol, task), "student", "best", 20))
    report = WeightsReport("imagenet", 10, (), ("fc.weight",), "cd" * 32)
    record, stored = make_record(
        run=f"{method}-{config.network.name}-{config.hash}-s{seed}",
        task=task,
        resolved=resolved,
        scored=scored,
        evaluations_made=len(scored),
        network=NetworkInfo.of(config.network.name, config.network.weights, 44_500_000, [report]),
        cost=Cost(
            iterations=40, images=160, wall_seconds=wall, step_seconds=step, data_wait=0.125, peak_memory=3 * 2**29
        ),
        device="cpu",
        lists={"source": "ef" * 32, "target": "01" * 32},
        target_labels=target_labels,
        collapse=collapse,
        resumed=resumed,
        passes=passes,
    )
    # The checkout that the tests run from may be dirty.
    return record.model_copy(update={"revision": None}), stored
