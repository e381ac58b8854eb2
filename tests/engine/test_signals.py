"""Ctrl-C and SIGTERM: the step is finished and saved, and the run goes on bit-identical."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import FakeData, FakeMethod, run

from udabench.engine.checkpoint import Checkpoints
from udabench.engine.folder import RunFolder
from udabench.engine.signals import Stopped, listening
from udabench.method import Batch, Stage


def interrupting(folder: Path, number: int, at: int) -> Any:
    """Batches that send this process a signal while the one numbered ``at`` is fetched."""
    data = FakeData(RunFolder(folder), FakeMethod().stages())

    def open_batches(stage: Stage, version: int, start: int, stop: int) -> Iterator[Batch]:
        for iteration, batch in enumerate(data.batches(stage, version, start, stop), start):
            if (stage.name, iteration) == ("warm", at):
                os.kill(os.getpid(), number)
            yield batch

    return open_batches


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=rf"{signal.Signals(number).name} at iteration 4; .* udabench resume ") as stopped:
        run(tmp_path, open_batches=interrupting(tmp_path, number, 3))
    assert stopped.value.exit_code == 1
    assert RunFolder(tmp_path).status == "stopped"
    assert RunFolder(tmp_path).read_run()["iteration"] == 4
    assert signal.getsignal(number) == before
    resumed, _ = run(tmp_path)
    whole, _ = run(tmp_path / "whole")
    for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_signal_off_the_checkpoints_rhythm_saves_too(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, open_batches=interrupting(tmp_path, signal.SIGINT, 2))
    assert Checkpoints(tmp_path / "checkpoints").iterations() == [2, 3]


def test_a_signal_in_a_preparation_stops_between_images(tmp_path: Path) -> None:
    data = FakeData(RunFolder(tmp_path), FakeMethod().stages())

    def images(domain: str, skip: Any) -> Iterator[Any]:
        for number, image in enumerate(data.images(domain, skip)):
            if number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield image

    with pytest.raises(Stopped, match="the checkpoint of iteration 5 is saved"):
        run(tmp_path, open_images=images)
    assert len(list((tmp_path / "artefacts").rglob("*.png"))) == 1
    _, result = run(tmp_path)
    assert result.iterations == 13


def test_a_second_signal_ends_the_process_at_once() -> None:
    child = os.fork()
    if child == 0:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            if not stop:
                os._exit(3)
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT
