"""Checkpoints: whole or not at all, checked, and refused kindly where they do not fit."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from udabench.engine.checkpoint import Checkpoints, load_model, open_checkpoint, state_of, write_checkpoint
from udabench.errors import CheckpointError, PluginError, UserError


class Tied(nn.Module):
    """Shared, strided, integer and bfloat16 tensors: all that safetensors is particular about."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 3)
        self.b = nn.Linear(2, 3)
        self.b.weight = self.a.weight
        self.register_buffer("seen", torch.tensor(3))
        self.register_buffer("rounded", torch.tensor([1.5, 2.5]).bfloat16())
        self.register_buffer("strided", torch.arange(6.0).view(2, 3).t())


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    module, other = Tied(), Tied()
    write_checkpoint(tmp_path / "1", {"counter": 1}, module, {"a.0.step": torch.tensor(2.0)})
    checkpoint = open_checkpoint(tmp_path / "1")
    load_model(other, checkpoint)
    assert checkpoint.state == {"counter": 1}
    assert checkpoint.optimizers() == {"a.0.step": torch.tensor(2.0)}
    for key, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
        assert value.dtype == other.state_dict()[key].dtype
    assert other.b.weight is other.a.weight


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for iteration in (9, 10, 11):
        checkpoints.write(iteration, {}, nn.Linear(1, 1), {})
    assert checkpoints.iterations() == [10, 11]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "11"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_each_kind_of_damage_is_found(tmp_path: Path, file: str, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    for iteration in (1, 2):
        checkpoints.write(iteration, {"images_seen": iteration}, nn.Linear(1, 1), {"a.0.x": torch.ones(3)})
    path = tmp_path / "2" / file
    data = path.read_bytes()
    if damage == "flipped":
        place = data.rindex(b"2") if file == "state.json" else len(data) - 1
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif damage == "truncated":
        path.write_bytes(data[:-5])
    else:
        path.unlink()
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "2")
    said: list[str] = []
    found = checkpoints.latest(said.append)
    assert found is not None
    assert found.path.name == "1"
    assert "Falling back" in said[0]


def test_another_network_is_refused_with_keys_and_shapes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "1", {}, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), {})
    with pytest.raises(CheckpointError) as error:
        load_model(nn.Sequential(nn.Linear(2, 4)), open_checkpoint(tmp_path / "1"))
    text = str(error.value)
    assert "0.weight has (3, 2), the network (4, 2)" in text
    assert "unexpected 1.weight (3, 3)" in text


def test_state_that_is_no_tensor_is_refused() -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> object:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(PluginError, match=r"_extra_state.* is a dict"):
        state_of(Odd())


def test_no_space_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {}, nn.Linear(1, 1), {})
    original = Path.write_text

    def full(path: Path, *arguments: object, **more: object) -> int:
        if path.name == "state.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="The checkpoint of iteration 1 is intact"):
        checkpoints.write(2, {}, nn.Linear(1, 1), {})
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert open_checkpoint(tmp_path / "1")


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    """A file that would run code when it is unpickled is just a damaged one."""
    write_checkpoint(tmp_path / "1", {}, nn.Linear(1, 1), {})
    model = tmp_path / "1" / "model.safetensors"
    torch.save({"weight": torch.ones(1, 1)}, model)
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path / "1")


def test_what_kills_left_is_swept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for iteration in (1, 2):
        checkpoints.write(iteration, {}, nn.Linear(1, 1), {})
    for left in (".writing-3", ".removing-0"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "state.json").write_text(json.dumps({}))
    checkpoints.tidy(1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "damaged-2"]
    assert checkpoints.iterations() == [1]
