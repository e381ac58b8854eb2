"""A pass that labels the target, in a run: a disk that is full in its middle, what is logged and recorded."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import CLASSES, NAMES, run
from PIL import Image
from torch import Tensor, nn

from udabench.engine.files import DiskFull
from udabench.engine.metrics import read_metrics
from udabench.method import Group, Loss, Method, Optimizer, Samples, Stage
from udabench.parts.label_rules import PortionRule
from udabench.parts.pseudo_label_pass import PseudoLabelPass


class Labelling(Method):
    """One step, labels, one step."""

    def __init__(self) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, 3, 1)

    def stages(self) -> Sequence[Stage]:
        optimizers = {"segmenter": Optimizer("sgd", [Group(tuple(self.net.parameters()), 0.1)])}
        labels = PseudoLabelPass(self.probability, CLASSES, PortionRule(0.3, 1))
        return [
            Stage("first", 1, self.step, optimizers),
            Stage("labels", 0, prepare=labels),
            Stage("last", 1, self.step, optimizers),
        ]

    def step(self, batch: Any, iteration: int, rng: torch.Generator) -> Any:
        yield Loss("bright", self.net(batch.source.image).square().mean())

    def probability(self, samples: Samples) -> Tensor:
        return (9 * self.net(samples.image)).softmax(1)

    def predict(self, samples: Samples) -> Tensor:
        return self.net(samples.image)


def truth(samples: Samples) -> Tensor:
    return torch.zeros(1, 8, 8, dtype=torch.int64)


def labels_of(folder: Path) -> dict[str, bytes]:
    root = folder / "artefacts" / "labels" / "0"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def logged(folder: Path) -> list[dict[str, Any]]:
    return [entry for entry in read_metrics(folder / "metrics.jsonl") if entry["stage"] == "labels"]


def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = run(tmp_path / "whole", Labelling(), truth=truth)
    save = Image.Image.save

    def full(image: Image.Image, path: Any, **options: Any) -> None:
        if isinstance(path, Path) and NAMES[2] in path.name:
            path.write_bytes(b"half a pic")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DiskFull, match=rf"labels/0/pseudo_label/{NAMES[2]}\.png.*udabench resume"):
        run(tmp_path / "full", Labelling(), truth=truth)
    left = labels_of(tmp_path / "full")
    assert sorted(left) == ["pseudo_label-thresholds.table.safetensors", *(f"pseudo_label/{n}.png" for n in NAMES[:2])]
    monkeypatch.undo()

    resumed = Labelling()
    resumed.probability = lambda samples: asked.append(samples.names[0]) or Labelling.probability(resumed, samples)  # type: ignore[method-assign]
    asked: list[str] = []
    _, again = run(tmp_path / "full", resumed, truth=truth)
    assert asked == [NAMES[2]]
    assert labels_of(tmp_path / "full") == labels_of(tmp_path / "whole")
    assert logged(tmp_path / "full") == logged(tmp_path / "whole")
    assert again.passes == whole.passes


def test_passes_are_told_to_the_record(tmp_path: Path) -> None:
    _, result = run(tmp_path, Labelling(), truth=truth)
    ((stage, iteration, values),) = result.passes
    assert (stage, iteration) == ("labels", 1)
    assert values == logged(tmp_path)[0]["values"]
    density = values["pseudo_label/density"]
    assert 0.25 < density < 0.5
    shares = [values[f"pseudo_label/share/{name}"] for name in CLASSES.names]
    assert sum(shares) == pytest.approx(density)
    assert values["probe/pseudo_label/density"] == pytest.approx(density)
    # All pixels are truly of class 0.
    assert values["probe/pseudo_label/accuracy"] == pytest.approx(shares[0] / density)
    _, later = run(tmp_path, Labelling(), truth=truth)
    assert later.passes == result.passes
