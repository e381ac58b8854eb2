"""What a run takes of the disk: counted by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch

from udabench.config import RunConfig
from udabench.errors import UserError
from udabench.method import Group, Method, Optimizer, Stage
from udabench.run import disk
from udabench.run.disk import DiskUse, check_space, disk_use, free_space, state_sizes


class Writer(Method):
    """100 values of 4 bytes, 10 of them a buffer; two passes of labels in one stage, one of soft labels before it."""

    kind: ClassVar[Any] = "adam"

    def __init__(self) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        self.weight = torch.nn.Parameter(torch.zeros(90))
        self.register_buffer("prototypes", torch.zeros(10))

    def stages(self) -> list[Stage]:
        optimizers = {"segmenter": Optimizer(self.kind, [Group([self.weight], 0.1)])}
        return [
            Stage("warm", 5, optimizers=optimizers),
            Stage("soft", 0, domains=("target",), prepare=lambda workspace: None, pixel_bytes=9),
            Stage("adapt", 8, optimizers=optimizers, prepare=lambda workspace: None, prepare_every=4),
        ]

    def predict(self, samples: Any) -> torch.Tensor:
        return self.weight


CONFIG = RunConfig(
    method="writer",
    source="a",
    data={"target_size": "16x8", "source_size": "16x8", "crop": "8x8"},
    engine={"keep_checkpoints": 2},
)


def use_of(method: Method, images: Any, taken: int = 0) -> DiskUse:
    return disk_use(method.stages(), state_sizes(method), CONFIG, images, taken)


def test_checkpoints_ends_and_artefacts_are_counted() -> None:
    use = use_of(Writer(), {"source": 7, "target": 5})
    assert use.checkpoint == 400 + 2 * 360
    assert use.checkpoints == 3 * 1120
    assert use.ends == 2 * 400
    assert (use.passes, use.artefacts) == (3, 5 * 128 * 9 + 2 * 5 * 128 // 16)
    assert use.total == 3360 + 800 + 5760 + 80
    assert (
        use.described()
        == "10.0 kB at most (checkpoints 3.4 kB, ends of stages 800 bytes, artefacts of 3 passes 5.8 kB)"
    )


class Growing(Writer):
    """The last two stages bring 25 values each."""

    def stages(self) -> list[Stage]:
        first, *others = super().stages()
        return [first, *(replace(stage, start=partial(self.grow, stage.name)) for stage in others)]

    def grow(self, name: str) -> None:
        self.register_buffer(name, torch.zeros(25))


def test_what_a_stage_brings_along_is_counted() -> None:
    use = use_of(Growing(), {"target": 5})
    assert use.checkpoint == 400 + 2 * 100 + 2 * 360
    assert use.ends == 400 + 500
    assert use_of(Growing(), {"target": 5}, taken=1).ends == 500


def test_what_is_taken_over_takes_nothing() -> None:
    use = use_of(Writer(), {"target": 5}, taken=2)
    assert (use.ends, use.passes, use.artefacts) == (0, 2, 80)


def test_images_that_cannot_be_counted_are_said_to_be() -> None:
    use = use_of(Writer(), {})
    assert use.artefacts is None
    assert use.total == 3360 + 800
    assert "artefacts of 3 passes unknown: the images cannot be counted" in use.described()


class Usage(NamedTuple):
    free: int


def test_a_run_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use = DiskUse(10**6, 300 * 10**6, 0, 20 * 10**6, 1)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(320 * 10**6))
    place = tmp_path / "not" / "yet" / "there"
    assert free_space(place) == 320 * 10**6
    check_space(use, place)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(320 * 10**6 - 1))
    said = r"needs 320\.0 MB at most .*artefacts of 1 pass 20\.0 MB.* only 320\.0 MB are free"
    with pytest.raises(UserError, match=said):
        check_space(use, place)
