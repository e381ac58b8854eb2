"""Artefacts: what is stored how, which version is read when, and names that would leave the folder."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import DEVICE, samples
from torch import Tensor

from udabench.engine.artefacts import Artefacts, read_value, write_table, write_value
from udabench.engine.workspace import RunWorkspace, no_images
from udabench.errors import DataError, PluginError, UsageError
from udabench.method import Mining, Stage


def no_step(*_: Any) -> Iterator[Any]:
    yield from ()


STAGES = [Stage("one", 10, no_step, {}), Stage("two", 10, no_step, {})]


@pytest.mark.parametrize(
    ("value", "suffix"),
    [
        (torch.tensor([[0, 255], [7, 19]]), ".png"),
        (torch.tensor([[0, 256]]), ".safetensors"),
        (torch.tensor([[-1, 3]]), ".safetensors"),
        (torch.tensor([[True, False]]), ".safetensors"),
        (torch.rand(2, 2), ".safetensors"),
        (torch.rand(5, 2, 2), ".safetensors"),
        (torch.rand(3, 2, 2) * 255 - 1, ".safetensors"),
        ((torch.arange(12.0) * 20 / 255).view(3, 2, 2), ".png"),
    ],
)
def test_values_come_back(tmp_path: Path, value: Tensor, suffix: str) -> None:
    write_value(tmp_path, "x", value)
    assert [p.name for p in tmp_path.iterdir()] == [f"x{suffix}"]
    torch.testing.assert_close(read_value(tmp_path, "x"), value, rtol=0, atol=1e-7)


def test_a_picture_is_rounded_to_its_256_levels(tmp_path: Path) -> None:
    write_value(tmp_path, "x", torch.full((3, 2, 2), 0.31))
    assert read_value(tmp_path, "x").unique().tolist() == pytest.approx([79 / 255])


def test_a_value_that_changes_its_kind_leaves_one_file(tmp_path: Path) -> None:
    write_value(tmp_path, "x", torch.zeros(2, 2).long())
    write_value(tmp_path, "x", torch.zeros(2, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\\..\\b", "x\0", ".."])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    workspace = RunWorkspace(tmp_path / "run", no_images, DEVICE)
    for attempt in (
        lambda: workspace.write("pseudo", name, torch.zeros(2, 2)),
        lambda: workspace.write(name, "x", torch.zeros(2, 2)),
        lambda: workspace.write_table(name, {}),
        lambda: workspace.read("pseudo", name),
        lambda: Artefacts(tmp_path, [Stage(name, 1, no_step, {})]),
    ):
        with pytest.raises(UsageError, match="would leave the run folder"):
            attempt()
    assert list(tmp_path.rglob("*")) == []


def test_names_may_have_folders(tmp_path: Path) -> None:
    workspace = RunWorkspace(tmp_path, no_images, DEVICE)
    workspace.write("pseudo", "aachen/aachen_000", torch.ones(2, 2).long())
    assert workspace.read("pseudo", "aachen/aachen_000").sum() == 4


def test_missing_and_damaged_values_are_named(tmp_path: Path) -> None:
    workspace = RunWorkspace(tmp_path, no_images, DEVICE)
    with pytest.raises(DataError, match="pseudo/x is missing"):
        workspace.read("pseudo", "x")
    assert workspace.read_table("thresholds") is None
    workspace.write("pseudo", "x", torch.zeros(2, 2).long())
    (tmp_path / "pseudo" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.png cannot be read"):
        workspace.read("pseudo", "x")


def test_tables_come_back(tmp_path: Path) -> None:
    workspace = RunWorkspace(tmp_path, no_images, DEVICE)
    workspace.write_table("thresholds", {"t": torch.tensor([0.5, 0.7])})
    table = workspace.read_table("thresholds")
    assert table is not None
    assert torch.equal(table["t"], torch.tensor([0.5, 0.7]))


def test_a_pass_that_goes_on_skips_what_is_done_and_draws_the_same(tmp_path: Path) -> None:
    opened: list[str] = []

    def images(domain: str, skip: Any) -> Iterator[Any]:
        for index, name in enumerate(("a", "b", "c")):
            if not skip(name):
                opened.append(name)
                yield samples(index, (name,))

    def go(folder: Path, stop_after: int = 9) -> dict[str, float]:
        workspace = RunWorkspace(folder, images, DEVICE, (0, "stage"))
        drawn = {}
        for number, image in enumerate(workspace.images("target", skip_done="pseudo"), 1):
            drawn[image.names[0]] = torch.rand(1).item()
            workspace.write("pseudo", image.names[0], torch.zeros(2, 2).long())
            if number == stop_after:
                break
        return drawn

    whole = go(tmp_path / "whole")
    first = go(tmp_path / "parts", stop_after=1)
    opened.clear()
    rest = go(tmp_path / "parts")
    assert opened == ["b", "c"]
    assert {**first, **rest} == whole


def test_a_layer_is_read_from_the_version_in_force(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path, STAGES)
    for stage, iteration, artefact in (("one", 0, "p"), ("one", 5, "p"), ("two", 0, "q"), ("two", 4, "p")):
        write_value(artefacts.version(stage, iteration) / artefact, "x", torch.full((1, 1), iteration))

    def where(artefact: str, stage: str, version: int) -> str:
        return str(artefacts.reader(artefact, stage, version).folder.relative_to(tmp_path))

    assert where("p", "one", 0) == "one/0/p"
    assert where("p", "one", 5) == "one/5/p"
    assert where("p", "two", 0) == "one/5/p"
    assert where("p", "two", 4) == "two/4/p"
    assert where("q", "two", 4) == "two/0/q"
    with pytest.raises(DataError, match="reads the artefact 'q', which no prepare has written up to iteration 5"):
        artefacts.reader("q", "one", 5)
    reader = pickle.loads(pickle.dumps(artefacts.reader("p", "one", 5)))
    assert reader.read("x").item() == 5


def test_the_classes_that_are_mined_are_those_of_the_version_in_force(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path, STAGES)
    for stage, iteration, ids in (("one", 0, [4]), ("one", 5, []), ("two", 4, [7, 18])):
        RunWorkspace(artefacts.version(stage, iteration), no_images, DEVICE).write_table(
            "rare", {"classes": torch.tensor(ids, dtype=torch.int64)}
        )
    one, two = (replace(stage, layers={"p": ("target", "p")}, mining=Mining("p", "rare")) for stage in STAGES)
    assert [artefacts.mined(one, version) for version in (0, 5)] == [(4,), ()]
    assert [artefacts.mined(two, version) for version in (0, 4)] == [(), (7, 18)]
    assert artefacts.mined(STAGES[0], 0) == ()
    with pytest.raises(DataError, match="Stage 'one' reads the artefact 'other', which no prepare has written"):
        artefacts.mined(replace(one, mining=Mining("p", "other")), 5)
    write_table(artefacts.version("one", 0), "other", {"ids": torch.tensor([1])})
    with pytest.raises(PluginError, match=r"is to hold 'classes', ids to be mined; it holds ids"):
        artefacts.mined(replace(one, mining=Mining("p", "other")), 5)


def test_versions_of_a_lost_future_are_removed(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path, STAGES)
    for stage, iteration in (("one", 0), ("one", 5), ("two", 0), ("two", 4)):
        artefacts.version(stage, iteration).mkdir(parents=True)
    artefacts.forget_after(10)
    assert artefacts.version("two", 0).is_dir()
    assert not artefacts.version("two", 4).exists()
    artefacts.forget_after(4)
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.glob("*/*"))] == ["one/0"]


def test_a_stage_that_prepares_without_images_is_told() -> None:
    with pytest.raises(UsageError, match="images of the target"):
        list(RunWorkspace(Path("unused"), no_images, DEVICE).images("target"))


def test_images_are_counted_unopened_and_a_walk_tells_where_it_is(tmp_path: Path) -> None:
    opened: list[str] = []

    def images(domain: str, skip: Any) -> Iterator[Any]:
        for name in ("a", "b", "c"):
            if not skip(name):
                opened.append(name)
                yield samples(0, (name,))

    told: list[tuple[int, int]] = []
    workspace = RunWorkspace(tmp_path, images, DEVICE, check=lambda place, whole: told.append((place, whole)))
    assert workspace.count("target") == 3
    assert opened == []
    workspace.write("pseudo", "b", torch.zeros(2, 2).long())
    assert [workspace.has("pseudo", name) for name in "abc"] == [False, True, False]
    assert [image.names[0] for image in workspace.images("target", skip_done="pseudo")] == ["a", "c"]
    assert told == [(1, 3), (3, 3)]
    assert [image.names[0] for image in workspace.images("target", share=True)] == ["a", "b", "c"]
