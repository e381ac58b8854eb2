"""``udabench translate``: what lies on a page, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from udabench.cli.translate import translate
from udabench.data.show import GAP, LINE
from udabench.errors import DataError, UsageError
from udabench.translate.fda import fda


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UDABENCH_DATA", raising=False)
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))

    def run(*arguments):
        result = CliRunner().invoke(translate, [*map(str, arguments), "--device", "cpu"])
        if result.exception is not None:
            raise result.exception
        return result.output.split()

    return run


@pytest.fixture
def pictures(tmp_path):
    """``a/x.png``, ``a/deep/y.jpg`` of 60x40, ``b/z.png`` of 30x40."""
    rng = np.random.default_rng(0)
    for name, width in (("a/x.png", 60), ("a/deep/y.jpg", 60), ("b/z.png", 30)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, width, 3), np.uint8)).save(path)
    return tmp_path


def _read(path):
    return np.asarray(Image.open(path))


def test_a_page_shows_original_partner_and_translation(call, pictures):
    assert call("a", "--with", "fda", "--to", "b/z.png", "--set", "beta=0.1", "--out", "o") == [
        "o/deep/y.png",
        "o/x.png",
    ]
    page = _read("o/x.png")
    assert page.shape == (LINE + 40, 60 + GAP + 30 + GAP + 60, 3)
    shown = [page[LINE:, left : left + width] for left, width in ((0, 60), (60 + GAP, 30), (90 + 2 * GAP, 60))]
    assert np.array_equal(shown[0], _read("a/x.png"))
    assert np.array_equal(shown[1], _read("b/z.png"))
    source, target = (torch.tensor(p.copy()).permute(2, 0, 1)[None] / 255 for p in shown[:2])
    expected = (fda(source, target, 0.1).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    assert np.array_equal(shown[2], expected.astype(np.uint8))
    assert len(np.unique(page[:LINE, :60])) > 1


def test_unpaired_engines_show_two_pictures_and_repeat_with_the_seed(call, pictures):
    for out, seed in (("one", 1), ("same", 1), ("other", 2)):
        call("a/x.png", "--with", "color_jitter", "--set", "chance=1", "--seed", seed, "--out", out)
    assert _read("one/x.png").shape == (LINE + 40, 60 + GAP + 60, 3)
    assert np.array_equal(_read("one/x.png"), _read("same/x.png"))
    assert not np.array_equal(_read("one/x.png"), _read("other/x.png"))


def test_data_sets_by_name_at_a_size(call):
    written = call("toycity", "--with", "fda", "--to", "toycity-real", "--count", 2, "--size", "64x32")
    assert len(written) == 2
    page = _read(written[0])
    assert page.shape[0] == LINE + 32
    assert page.shape[1] == 64 + GAP + 64 + GAP + 64


def test_the_folder_engine_finds_pictures_by_name(call, pictures):
    call("a/x.png", "--with", "folder", "--set", "path=a")
    page = _read("translated/folder/x.png")[LINE:]
    assert np.array_equal(page[:, :60], page[:, 60 + GAP :])
    with pytest.raises(DataError, match="lacks the translated pictures of 2 of 2 training images: 'deep/y', 'x'"):
        call("a", "--with", "folder", "--set", "path=b", "--out", "none")
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["a", "--with", "fda"], "name them with --to"),
        (["a", "--with", "weather", "--to", "b"], "leave out --to b"),
        (["a", "--with", "fad", "--to", "b"], "Unknown translator 'fad'. Did you mean 'fda'"),
        (["c", "--with", "weather"], "Unknown picture, folder or data set 'c'"),
        (["a", "--with", "fda", "--to", "toycty"], "Did you mean 'toycity'"),
        (["empty", "--with", "weather"], "folder empty holds no pictures"),
        (["a", "--with", "fda", "--to", "b", "--set", "beta=3"], "FDA's beta = 3"),
        (["a", "--with", "weather", "--set", "kinds=[hail]"], "Unknown kind of weather 'hail'"),
        (["a", "--with", "weather", "--size", "big"], "--size: a size is written WIDTHxHEIGHT"),
        (["a", "--with", "weather", "--out", "a"], "x.png is one of the pictures: it would be written over"),
        (["a", "--with", "fda", "--to", "gta5"], "folder of data set 'gta5' is not known"),
    ],
)
def test_what_is_refused(call, pictures, arguments, error):
    (pictures / "empty").mkdir()
    with pytest.raises(UsageError, match=error):
        call(*arguments)
    assert not (pictures / "translated").exists()


def test_a_broken_picture_is_named(call, pictures):
    (pictures / "a" / "x.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"a/x\.png cannot be decoded"):
        call("a/x.png", "--with", "weather")
