"""What is logged where: metrics.jsonl, TensorBoard, log.txt, terminal."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import torch
from engine_fakes import CLASSES, config_of, run
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from udabench.engine.folder import RunFolder
from udabench.engine.log import Pace, RunLog
from udabench.engine.metrics import Metrics, read_metrics
from udabench.engine.pictures import to_rgb
from udabench.errors import PluginError


def test_metrics_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"stage": "main", "iteration": i, "values": {"a": i}}) for i in (1, 2, 3)]
    path.write_text("\n".join(lines) + '\n{"stage": "main", "iter')
    metrics = Metrics(path)
    metrics.open(2)
    metrics.write("main", 3, {"a": 30.0, "b": float("nan")})
    metrics.close()
    assert [(e["iteration"], e["values"]) for e in read_metrics(path)] == [(1, {"a": 1}), (2, {"a": 2}), (3, {"a": 30})]


def test_tensorboard_holds_scalars_and_pictures(tmp_path: Path) -> None:
    run(tmp_path, config=config_of(log_every=2, panel_every=4))
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert [e.step for e in events.Scalars("loss/source")] == [1, 2, 4, 6, 8, 10, 12, 13]
    assert [e.step for e in events.Images("pseudo")] == [8, 12, 13]


def test_pictures_are_coloured() -> None:
    image = torch.rand(1, 3, 2, 2)
    assert torch.equal(to_rgb(image, CLASSES), image)
    ids = to_rgb(torch.tensor([[[0, 1], [2, 255]]]), CLASSES)
    assert (ids[0].permute(1, 2, 0) * 255).round().int().tolist() == [
        [[128, 0, 0], [0, 128, 0]],
        [[0, 0, 128], [0, 0, 0]],
    ]
    heat = to_rgb(torch.tensor([[[0.0, 1.0]]]), CLASSES)
    # matplotlib's viridis: #440154 to #FDE725.
    assert (heat[0, :, 0] * 255).round().int().tolist() == [
        [0x44, 0xFD],
        [0x01, 0xE7],
        [0x54, 0x25],
    ]
    with pytest.raises(PluginError, match="Panel's picture has shape"):
        to_rgb(torch.rand(2, 2), CLASSES)


def test_without_a_terminal_there_are_few_plain_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    run(tmp_path, config=config_of(log_every=1), console=Console(file=out))
    lines = [line for line in out.getvalue().splitlines() if "/13 " in line]
    assert len(lines) <= 3
    assert "13/13" in lines[-1]
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert sum("/13 " in line for line in log) == 13
    assert re.search(r"adapt 13/13  loss \d.* lr \d.* it/s  \d.* GiB  ETA 0:00:00", log[-1])


def test_a_terminal_shows_where_a_pass_is(tmp_path: Path) -> None:
    out = io.StringIO()
    log = RunLog(RunFolder(tmp_path), CLASSES, 10, Console(file=out, force_terminal=True, width=150))
    log.open(0)
    log.looking("labels", 12, 2975)
    log.close()
    assert "labels" in out.getvalue()
    assert "image 12/2975" in out.getvalue()


def test_without_a_terminal_a_pass_says_seldom_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    log = RunLog(RunFolder(tmp_path), CLASSES, 10, Console(file=out))
    now = iter([100.0, 100.0, 105.0, 111.0, 111.0])
    monkeypatch.setattr("udabench.engine.log.time.monotonic", lambda: next(now))
    for place in (1, 2, 3):
        log.looking("labels", place, 3)
    assert out.getvalue().splitlines() == ["labels: image 1/3", "labels: image 3/3"]


def test_a_terminal_shows_a_bar_with_loss_rate_speed_and_memory(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=150)
    log = RunLog(RunFolder(tmp_path), CLASSES, 10, console)
    log.open(0)
    log.advance(5)
    log.step("main", 5, {"loss/a": 1.0, "loss/a/part": 9.0, "loss/b": 0.5, "lr/x": 0.01}, Pace(2.0, 2**30))
    log.warn("mind this")
    log.close()
    text = out.getvalue()
    assert "loss 1.5  lr 0.01  2 it/s  1.00 GiB" in text
    assert "5/10" in text
    assert "warning: mind this" in text
    assert "ETA" in text
    assert "warning: mind this" in (tmp_path / "log.txt").read_text()
