from __future__ import annotations

from pathlib import Path

import pytest

from udabench.data.locate import VARIABLE, open_dataset
from udabench.errors import DataError, UsageError
from udabench.plugins import load_registry
from udabench.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_configured_folder_comes_first(registry, make_gta5, monkeypatch, tmp_path) -> None:
    data = make_gta5("mine")
    make_gta5("gta5", count=2)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert len(open_dataset(registry, "gta5", "train", {"gta5": data.root})) == 6
    assert len(open_dataset(registry, "gta5", "train")) == 2


def test_a_relative_and_an_absolute_folder_are_the_same_data(registry, make_gta5, monkeypatch) -> None:
    data = make_gta5()
    monkeypatch.chdir(data.root.parent)
    relative = open_dataset(registry, "gta5", "train", {"gta5": Path("gta5")})
    assert relative.identity() == open_dataset(registry, "gta5", "train", {"gta5": data.root}).identity()


@pytest.mark.parametrize("key", ["camvid", "camvid-dusk", None])
def test_data_sets_may_share_a_folder(registry, tmp_path, monkeypatch, key) -> None:
    (tmp_path / "camvid").mkdir()
    (tmp_path / "camvid/train.txt").write_text("train/0001TP_1.jpg trainannot/0001TP_1.png\n")
    monkeypatch.setenv(VARIABLE, "/nowhere" if key else str(tmp_path))
    roots = {key: tmp_path / "camvid"} if key else {}
    assert open_dataset(registry, "camvid-dusk", "train", roots).names == ("0001TP_1",)


def test_an_unknown_folder_says_all(registry) -> None:
    with pytest.raises(UsageError) as caught:
        open_dataset(registry, "gta5", "train")
    text = str(caught.value)
    for part in (
        "'gta5' is not known",
        "images/00001.png",
        "labels/00001.png",
        "Playing for Data",
        VARIABLE,
        "--set data.gta5=",
    ):
        assert part in text


def test_a_missing_folder_is_named_with_its_origin(registry, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=rf"no folder {tmp_path}/synthia \({VARIABLE}\)") as caught:
        open_dataset(registry, "synthia", "train")
    assert "SYNTHIA-RAND-CITYSCAPES" in str(caught.value)
    with pytest.raises(DataError, match=r"no folder /nowhere \(data.cityscapes\)"):
        open_dataset(registry, "cityscapes", "val", {"cityscapes": Path("/nowhere")})


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("gat5", "train", {}, "Unknown data set 'gat5'. Did you mean 'gta5'?"),
        ("gta5", "val", {}, "Unknown split of gta5 'val'. Known: train."),
        ("cityscapes", "vall", {}, "Unknown split of cityscapes 'vall'. Did you mean 'val'?"),
        ("gta5", "train", {"listfile": "x"}, "'listfile'. Did you mean 'list_file'?"),
        ("synthia", "train", {"seed": 1}, "Unknown option of data set synthia: 'seed'. Known: list_file."),
    ],
)  # fmt: skip
def test_misspelt_names(registry, tmp_path, name, split, options, message) -> None:
    with pytest.raises(UsageError) as caught:
        open_dataset(registry, name, split, {name: tmp_path}, options)
    assert message in str(caught.value)


def test_an_option_reaches_the_data_set(registry, make_gta5, tmp_path) -> None:
    data = make_gta5()
    (tmp_path / "list.txt").write_text("00002.png\n00005.png\n")
    options = {"list_file": str(tmp_path / "list.txt")}
    filtered = open_dataset(registry, "gta5", "train", {"gta5": data.root}, options)
    assert filtered.names == ("00002", "00005")
    assert filtered.digest() != data.digest()
