"""Which device a process takes, alone and beside others."""

from __future__ import annotations

import pytest
import torch

from udabench import device
from udabench.device import choose_device
from udabench.errors import UsageError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two; what torch was told to use."""
    used: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    return used


def beside(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """One of several processes on this machine."""
    for name, value in (("world_size", size), ("local_size", size), ("local_rank", rank)):
        monkeypatch.setattr(device, name, lambda value=value: value)


def test_alone(two_gpus: list[torch.device]) -> None:
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"cuda:2' is not there; torch finds 2"):
        choose_device("cuda:2")
    with pytest.raises(UsageError, match="Unknown device 'gpu'"):
        choose_device("gpu")
    assert not two_gpus


def test_each_process_takes_a_gpu_of_its_own(two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch, rank=1, size=2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 1)
    assert two_gpus == [torch.device("cuda", 1)] * 2
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="takes a GPU of its own, not all 'cuda:0'"):
        choose_device("cuda:0")


def test_more_processes_than_gpus(two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch, rank=0, size=3)
    with pytest.raises(UsageError, match=r"3 processes on this machine, but torch finds 2 .* --nproc-per-node 2"):
        choose_device("auto")


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="torch finds no CUDA device"):
        choose_device("cuda")
