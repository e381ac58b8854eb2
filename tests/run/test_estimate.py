"""What a run will cost: counted by hand for a network of one layer."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from udabench.errors import DataError
from udabench.method import Batch, Loss, Method, Samples, Stage, Workspace
from udabench.run.estimate import FORMULAS, Estimate, estimate
from udabench.testing.subject import Subject


class OneLayer(Method):
    """A 1x1 convolution with 3 x 19 weights, on the target, after a stage that renews it."""

    domains: ClassVar[Any] = ("target",)
    layers: ClassVar[Any] = {}

    def __init__(self, config: Any, setup: Any) -> None:
        super().__init__(config, setup)
        self.network = setup.network()
        self.layer = torch.nn.Conv2d(3, 1, 1, bias=False)
        self.started = 0

    def stages(self) -> list[Stage]:
        optimizers = {"segmenter": self.setup.segmenter(self.network, self.layer)}
        domains, layers, step = self.domains, self.layers, self.step
        return [
            Stage("pass", 0, prepare=self.look_around, domains=domains),
            Stage("steps", 4, step, optimizers, domains=domains, layers=layers, start=self.renew),
        ]

    def look_around(self, workspace: Workspace) -> None:
        raise AssertionError("an estimate reads no data")

    def renew(self) -> None:
        self.layer = torch.nn.Conv2d(3, 19, 1, bias=False)
        self.started += 1

    def step(self, batch: Batch, iteration: int, rng: torch.Generator) -> Generator[Loss, None, None]:
        assert batch.source is None
        assert batch.target is not None
        assert self.started == 1
        yield Loss("logits", self.layer(batch.target.image).square().mean())

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.layer(samples.image)
        return logits


class Layered(OneLayer):
    """Reads pseudo-labels."""

    layers: ClassVar[Any] = {"pseudo": ("target", "pseudo")}


class Filed(OneLayer):
    """Reads a file for each image."""

    def step(self, batch: Batch, iteration: int, rng: torch.Generator) -> Generator[Loss, None, None]:
        raise DataError("there is no file 'probe-0.png'")
        yield from super().step(batch, iteration, rng)


def of(method: type[Method], folder: Path, **values: Any) -> Estimate:
    return estimate(Subject(method, None, folder, {"engine.device": "cpu", **values}).plan)


def test_a_step_is_counted_as_in_a_run(tmp_path: Path) -> None:
    """Forward and the weights' gradient: 2 x (2 x 3 x 19) operations for each pixel of the crop."""
    small = of(OneLayer, tmp_path, **{"data.target_batch": 3})
    crop = 32 * 32
    assert small.step_flops == pytest.approx(2 * 2 * 3 * 19 * 3 * crop)
    assert small.step_flops is not None
    assert small.step_seconds == pytest.approx(3 * small.step_flops / small.flops_per_second)


@pytest.mark.parametrize("method", [Layered, Filed])
def test_a_stage_that_reads_files_is_not_estimated(tmp_path: Path, method: type[Method]) -> None:
    found = of(method, tmp_path)
    assert found.step_flops is None
    assert found.step_seconds is None
    assert found.parameters > 0


@pytest.mark.parametrize(
    ("layer", "weights", "positions"),
    [
        (torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), 8 * 9, 64),
        (torch.nn.Conv2d(8, 4, 3, stride=2, padding=1, bias=False), 8 * 4 * 9, 16),
        (torch.nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False), 8 * 4 * 4, 64),
    ],
    ids=["depthwise", "strided", "transposed"],
)
def test_a_convolution_costs_thrice_its_forward_pass(layer: torch.nn.Module, weights: int, positions: int) -> None:
    image = torch.zeros(2, 8, 8, 8, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        layer(image).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * positions * weights
