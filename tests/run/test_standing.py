"""Where a run's stages stand, and what is left of a run that was pruned."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from generations import Home, listing, same, weights
from PIL import Image

from udabench.cli import cli
from udabench.engine.files import DiskFull
from udabench.engine.folder import RunFolder
from udabench.engine.workspace import RunWorkspace
from udabench.errors import DataError, UsageError
from udabench.results import read_record
from udabench.run.conduct import resume_run, start_run
from udabench.run.evaluation import evaluate_run
from udabench.run.prune import find_prunable, prune_run
from udabench.run.standing import State, standings
from udabench.run.trained import load_trained


def told(folder: Path) -> list[tuple[Any, ...]]:
    return [(s.name, s.state.value, s.done, s.iterations, s.prepared, s.passes) for s in standings(RunFolder(folder))]


def test_a_finished_run(home: Home) -> None:
    assert told(home.one) == [
        ("warm", "done", 3, 3, 0, 0),
        ("label-1", "done", 0, 0, 1, 1),
        ("adapt-1", "done", 2, 2, 0, 0),
    ]
    (stored,) = standings(RunFolder(home.one))[1].artefacts
    images = list((home.one / "artefacts" / "label-1" / "0" / "label").iterdir())
    assert (stored.name, stored.version, stored.files) == ("label", 0, len(images))
    assert stored.size == sum(path.stat().st_size for path in images)


def test_a_run_that_was_killed_in_a_pass(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = RunWorkspace.write, [0]

    def dying(self: RunWorkspace, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunWorkspace, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            start_run(home.plan(generations=2, init_from=home.one), tmp_path)
    (stored,) = tmp_path.glob("*/*/run.json")
    assert told(stored.parent)[2:] == [
        ("adapt-1", "taken over", 2, 2, 0, 0),
        ("label-2", "stopped", 0, 0, 1, 1),
        ("adapt-2", "waiting", 0, 2, 0, 0),
    ]
    RunFolder(stored.parent).update_run(status="running")
    assert told(stored.parent)[3][1] == State.RUNNING
    shown = CliRunner().invoke(cli, ["show", str(stored.parent)])
    assert shown.exit_code == 0, shown.output
    for text in ("label-2  running     prepared 1 of 1 time", "label of iteration 0: 2 files", "adapt-2  waiting"):
        assert text in shown.output
    with pytest.raises(UsageError, match=r"has not ended .* needs its artefacts and checkpoints"):
        find_prunable(stored.parent)
    assert told(resume_run(stored.parent).folder)[-1] == ("adapt-2", "done", 2, 2, 0, 0)


def test_a_folder_without_stages_says_nothing(tmp_path: Path) -> None:
    assert standings(RunFolder(tmp_path)) == []


def test_a_pruned_run_is_still_a_result(home: Home, tmp_path: Path) -> None:
    folder = shutil.copytree(home.one, tmp_path / "run")
    found = find_prunable(folder, checkpoints=True)
    assert [path.name for path, _, _ in found.parts] == ["artefacts", "stages", "3"]
    assert [(files, size) for _, files, size in found.parts] == [
        (len(listing(path)), sum(map(len, listing(path).values()))) for path, _, _ in found.parts
    ]
    prune_run(found)
    assert not [path for path, _, _ in found.parts if path.exists()]
    assert find_prunable(folder, checkpoints=True).parts == ()
    assert read_record(folder) == read_record(home.one)
    assert same(weights(folder), weights(home.one))
    assert evaluate_run(folder, {}).record.evaluations == read_record(home.one).evaluations
    assert load_trained(folder, "cpu").iteration == 5
    assert standings(RunFolder(folder))[1].pruned == ("label",)
    assert told(folder) == told(home.one)


def test_what_may_begin_from_a_pruned_run(home: Home, tmp_path: Path) -> None:
    folder = shutil.copytree(home.one, tmp_path / "run")
    prune_run(find_prunable(folder))
    pruned, whole = (home.plan(generations=2, init_from=path).config for path in (folder, home.one))
    assert pruned.hash == whole.hash
    assert home.heritage(generations=2, init_from=folder).stages == ("warm", "label-1", "adapt-1")
    with pytest.raises(UsageError, match="stage 'adapt-1' reads the artefact 'label' of stage 'label-1', which was"):
        home.heritage(weight=0.5, init_from=folder)


def test_a_file_that_another_run_has_taken_over_frees_nothing(home: Home, tmp_path: Path) -> None:
    folder = shutil.copytree(home.one, tmp_path / "run")
    artefacts = [*folder.glob("artefacts/*/*/label/*")]
    assert find_prunable(folder).freed == sum(path.stat().st_size for path in artefacts)
    os.link(artefacts[0], tmp_path / "taken-over")
    os.link(artefacts[1], artefacts[1].with_name("second-name"))
    assert find_prunable(folder).freed == sum(path.stat().st_size for path in artefacts[1:])


def test_the_command_asks_first(home: Home, tmp_path: Path) -> None:
    folder = shutil.copytree(home.one, tmp_path / "run")
    before = listing(folder)
    asked = CliRunner().invoke(cli, ["prune", str(folder)])
    assert isinstance(asked.exception, UsageError)
    assert "There is nobody to ask: say --yes." in str(asked.exception)
    assert listing(folder) == before
    done = CliRunner().invoke(cli, ["prune", str(folder), "--yes"])
    assert done.exit_code == 0, done.output
    assert "artefacts  6 files" in done.output
    assert "freed." in done.output
    assert not (folder / "artefacts").exists()
    assert (folder / "stages").is_dir()


def test_what_is_no_run_is_not_pruned(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run folder"):
        find_prunable(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "target_train_001.png").unlink(), "lacks 1 of 6 images: target_train_001. Put them"),
        (lambda folder: (folder / "b.png").write_bytes(b""), "1 files that belong to none of the 6 .*: b.png. Remove"),
    ],
)
def test_labels_that_are_not_those_of_the_images_are_named(home: Home, tmp_path: Path, spoil: Any, said: str) -> None:
    shutil.copytree(home.one, folder := tmp_path / "run")
    for name in ("stages/adapt-1", "checkpoints/5"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "record.json").unlink()
    state = folder / "checkpoints" / "3"
    # As after the pass: the stage that reads it comes next.
    assert state.is_dir()
    spoil(folder / "artefacts" / "label-1" / "0" / "label")
    with pytest.raises(DataError, match=said):
        resume_run(folder)
    assert state.is_dir()


def test_a_full_disk_in_the_middle_of_a_pass_loses_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = Image.Image.save, [0]

    def full(self: Image.Image, *arguments: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise OSError(28, "No space left on device")
        save(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(DiskFull, match=r"No space is left .*udabench resume"):
            start_run(home.plan(), tmp_path)
    (stored,) = tmp_path.glob("*/*/run.json")
    assert standings(RunFolder(stored.parent))[1].artefacts[0].files == 3
    folder = resume_run(stored.parent).folder
    assert same(weights(folder), weights(home.one))
    assert listing(folder / "artefacts") == listing(home.one / "artefacts")
