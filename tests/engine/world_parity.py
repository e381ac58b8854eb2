"""The same global batch in one process and in two: norms are frozen and nothing is dropped out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from world_stage import play

from udabench.run import conduct
from udabench.run import opened as opening
from udabench.run.plan import Plan
from udabench.testing.subject import Subject

VALUES: Mapping[str, Any] = {
    "iterations": 5,
    "data.source_batch": 4,
    "data.target_batch": 4,
    "engine.checkpoint_every": 5,
    "engine.panel_every": 0,
    "network.options": {"dropout": 0.0},
}
PROTOTYPES = {
    "teacher_norms": "running", "prototype_pixels": 1, "label_stride": 1, "prototype_rate": 0.3, "ema": 0.5,
}  # fmt: skip
PULL = {"queries": 16, "negatives": 32, "feature_distance": 0.005}
PARITY: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "source_only": ("source_only", {"ce_avg": "valid"}),
    "dacs": ("dacs", {}),
    "t2sda": ("t2sda", PULL),
    "t2sda-other": ("t2sda", {**PULL, "pull_reduction": "literal", "negative_sampling": "pooled", "ce_avg": "all"}),
}
"""Scene -> method and values. T2S-DA's defaults have CBQS, DENPS and DRW on."""


MORE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "oracle": ("oracle", {}),
    "min_entropy": ("min_entropy", {}),
    "adaptseg": ("adaptseg", {}),
    "advent": ("advent", {"ensemble": True}),
    "fda": ("fda", {}),
    "daformer": ("daformer", {"data.sampler": "rcs", "feature_distance": 0.005}),
    "mic": ("mic", {}),
    "mic-hrda": ("mic", {"network.name": "hrda:fake", "network.options": {"dropout": 0.0, "attention": "deeplabv2"}}),
    "t2sda-unequal": ("t2sda", {**PULL, "data.target_batch": 2}),
    "bicl": ("bicl", {"threshold": 0.5, "momentum": 0.9, "refresh_every": 2, "warmup_share": 0.2, "distil_share": 0.2}),
    "cbst": ("cbst", {"mixture": "drawn", "source_portion": 0.5, "rounds": 2, "mrkld": 0.1, "lrent": 0.25}),
    "proda": ("proda", {**PROTOTYPES, "distillations": 2, "label_threshold": 0.1}),
    "proda-images": ("proda", {**PROTOTYPES, "distillations": 1, "prototype_mean": "images", "kl_divisor": "elements"}),
    "sam": ("sam", {"generations": 2}),
    "sam-cbst": ("sam_addon", {"inner": "cbst", "rounds": 1, "source_portion": 0.5}),
    "t2sda-jitter": ("t2sda", {**PULL, "translator": "color_jitter", "mix_scope": "image", "weight_scope": "batch"}),
}
LEARNING: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "norms": ("t2sda", {**PULL, "network.options": {}}),
    "norms-train": ("dacs", {"teacher_norms": "train", "network.options": {}}),
    "norms-hrda": ("t2sda", {**PULL, "network.name": "hrda:fake", "network.options": {}}),
    "norms-mic": ("mic", {"network.options": {}}),
}
"""Norms learn and features are dropped: the weights are others, but the same on both ranks."""


def frozen_train(module: nn.Module, mode: bool = True, train: Callable[..., nn.Module] = nn.Module.train) -> nn.Module:
    """Norms stay in evaluation."""
    return train(module, mode and not isinstance(module, _BatchNorm))


def parity(root: Path, name: str, method: str, values: Mapping[str, Any], sizes: Sequence[int] = (1, 2)) -> None:
    """Norms are frozen where one process and two are compared."""
    plan = Subject(method, None, root / name, {**VALUES, "data.store": root / "store", **values}).plan

    def scene(folder: Path) -> dict[str, str]:
        if 1 in sizes:
            nn.Module.train = frozen_train  # type: ignore[method-assign]
        return ended(plan, folder)

    for size in sizes:
        play(root / name / str(size), scene, size)


def ended(plan: Plan, folder: Path) -> dict[str, str]:
    """The state with which this rank ends a run, in short."""
    opened: list[opening.Opened] = []

    def open_plan(*given: Any, original: Callable[..., opening.Opened] = conduct.open_plan) -> opening.Opened:
        opened.append(original(*given))
        return opened[0]

    conduct.open_plan = open_plan
    conduct.start_run(plan, folder)
    return {key: repr(value.double().sum().item()) for key, value in opened[0].method.state_dict().items()}


def gpu_parity(root: Path) -> None:
    """T2S-DA with norms that learn, over both processes."""
    values = {**VALUES, **PULL, "engine.device": "cuda", "engine.sync_norms": True}
    plan = Subject("t2sda", None, root / "gpu", values).plan

    def scene(folder: Path) -> dict[str, str]:
        opening.choose_device = lambda name: torch.device("cuda", 0)
        return ended(plan, folder)

    for size in (1, 2):
        play(root / "gpu" / str(size), scene, size)
