from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import psutil
import pytest
import torch

from udabench.config import DataConfig
from udabench.data.batches import BatchFunction
from udabench.data.build import Builder
from udabench.data.loader import auto_workers, stream
from udabench.errors import DataError
from udabench.labels import CITYSCAPES19
from udabench.method import Batch, Stage

STAGE = Stage("train", 10, lambda *_: iter(()), {})
FEW = {"crop": "32x24", "source_size": "100x60", "target_size": "96x58"}


@pytest.fixture
def function(make_gta5, tmp_path) -> BatchFunction:
    config = DataConfig(**FEW, sampler="rcs", rcs_min_pixels=50, store=tmp_path / "store")
    return Builder(1, config, CITYSCAPES19, make_gta5(), make_gta5("target", seed=1)).stage(STAGE)


def flat(batches: list[Batch]) -> list[torch.Tensor]:
    return [t for batch in batches for half in batch for t in (half.image, half.box, half.flipped)] + [
        batch.source.label for batch in batches
    ]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(flat(one), flat(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_is_the_same_for_any_number_of_workers(function, workers) -> None:
    assert_same(list(stream(function, 0, 7)), list(stream(function, 0, 7, workers)))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_is_the_same_after_a_restart(function, workers) -> None:
    whole = list(stream(function, 0, 6))
    assert_same(whole[4:], list(stream(function, 4, 6, workers)))


def test_the_stream_is_the_same_in_spawned_processes(function) -> None:
    assert_same(list(stream(function, 0, 2)), list(stream(function, 0, 2, 1, start_method="spawn")))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_not_touched(function, workers) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    list(stream(function, 0, 3, workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert before[2] == random.getstate()


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_closing_midway_leaves_no_process(function) -> None:
    before = {p.pid for p in children()}
    batches = stream(function, 0, 100, 2)
    next(batches)
    started = [p for p in children() if p.pid not in before]
    assert len(started) >= 2
    batches.close()
    _, alive = psutil.wait_procs(started, timeout=5)
    # Python's own resource tracker may stay; the loaders may not.
    assert not [p for p in alive if "resource_tracker" not in " ".join(p.cmdline())]


def test_no_more_workers_than_batches(function) -> None:
    before = {p.pid for p in children()}
    batches = stream(function, 0, 1, 5)
    next(batches)
    assert len([p for p in children() if p.pid not in before]) <= 2
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_named(make_gta5, tmp_path, workers) -> None:
    source = make_gta5()
    function = Builder(0, DataConfig(**FEW), CITYSCAPES19, source, make_gta5("target")).stage(STAGE)
    path = source.root / "images/00004.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"images/00004.png cannot be decoded") as caught:
        list(stream(function, 0, 3, workers))
    assert "Traceback" not in str(caught.value)


def _dies(iteration: int) -> Batch:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    raise AssertionError


def test_a_killed_worker_says_so() -> None:
    with pytest.raises(DataError, match=r"ended unexpectedly.*data.workers lower"):
        list(stream(_dies, 0, 3, 1))


class _Bug:
    def __call__(self, iteration: int) -> Batch:
        raise ZeroDivisionError("a bug")


def test_a_bug_keeps_its_kind() -> None:
    with pytest.raises(ZeroDivisionError):
        list(stream(_Bug(), 0, 3, 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_do_not_end_workers(function, number) -> None:
    before = {p.pid for p in children()}
    batches = stream(function, 0, 30, 1)
    next(batches)
    started = [p for p in children() if p.pid not in before and "resource_tracker" not in " ".join(p.cmdline())]
    for process in started:
        process.send_signal(number)
    assert len(list(batches)) == 29


def test_auto_workers(function) -> None:
    assert auto_workers(3, function) == 3
    assert auto_workers(0, function) == 0
    assert 1 <= auto_workers(-1, function) <= function.images == 4
    assert auto_workers(-1, function, processes=1000) == 1


@pytest.mark.gpu
def test_pinned_batches_are_the_same(function) -> None:
    pinned = list(stream(function, 0, 3, 1, pin=True))
    assert pinned[0].source.image.is_pinned()
    assert_same(list(stream(function, 0, 3)), pinned)
