"""The kit of a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from udabench.testing import check_dataset, dataset_kit, fake_registry, write_fake_dataset

FILE = Path(__file__).with_name("broken_datasets.py")

BROKEN = [
    ("WrongMap", "declares", "id_map leads to 2"),
    ("NoLayout", "declares", "State 'layout' and 'obtain'"),
    ("NamesTwice", "names", "lists a name twice"),
    ("LeavesTheFolder", "names", "would leave the run folder"),
    ("AnyOrder", "names", "another order"),
    ("GreyImages", "samples", "not H W 3 uint8"),
    ("OtherSize", "samples", "is (8, 15), its image (8, 16)"),
    ("UnknownId", "samples", "label id(s) 7"),
    ("NotPicklable", "batches", "cannot be pickled"),
    ("Hashed", "elsewhere", "never from hash()"),
]


@pytest.fixture
def registry():
    return fake_registry(FILE)


@pytest.fixture
def no_processes(request, monkeypatch):
    """Another interpreter takes seconds: only where it is what is tested."""
    if request.node.callspec.params["check"] != "elsewhere":
        kept = tuple(check for check in dataset_kit.CHECKS if check.name != "elsewhere")
        monkeypatch.setattr(dataset_kit, "CHECKS", kept)


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(("name", "check", "said"), BROKEN)
def test_a_broken_data_set_fails_the_check_that_is_meant_for_it(registry, name, check, said):
    failed = {result.name: result.message for result in check_dataset(name, registry) if result.failed}
    assert list(failed) == [check]
    assert said in failed[check]


def test_a_sound_data_set_passes(registry, tmp_path):
    roots = {"fake-source": write_fake_dataset(tmp_path)}
    results = check_dataset("fake-source", registry, roots)
    assert {result.status for result in results} == {"passed"}, [str(result) for result in results]


def test_without_its_files_only_declarations_are_checked(registry, monkeypatch):
    monkeypatch.delenv("UDABENCH_DATA", raising=False)
    statuses = {result.name: result.status for result in check_dataset("gta5", registry)}
    assert statuses.pop("declares") == "passed"
    assert set(statuses.values()) == {"skipped"}


def test_a_named_folder_that_is_missing_is_a_failure(registry, tmp_path):
    results = {
        result.name: result for result in check_dataset("fake-source", registry, {"fake-source": tmp_path / "no"})
    }
    assert results["names"].failed
    assert "There is no folder" in results["names"].message
    assert results["samples"].blocked_by == "names"
