"""Style pictures, and FDA with them."""

import pytest
import torch
from PIL import Image

from udabench.errors import DataError, UsageError
from udabench.size import Size
from udabench.translate.fda import FDAStyle, fda
from udabench.translate.styles import ProceduralStyles, StyleFolder, open_styles


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "art").mkdir()
    for i, name in enumerate(("a.png", "art/b.jpg", "art/c.PNG")):
        Image.new("RGB", (30 + i, 20), (80 * i, 40, 0)).save(tmp_path / name)
    (tmp_path / "list.txt").write_text("no picture")
    return tmp_path


def test_a_folder_gives_each_of_its_pictures_in_equal_parts(folder):
    pictures = StyleFolder(folder).pick(600, Size(8, 12), _rng())
    assert pictures.shape == (600, 3, 8, 12)
    red = (pictures[:, 0, 0, 0] * 255 / 80).round()
    assert torch.bincount(red.int()).tolist() == pytest.approx([200, 200, 200], abs=40)


def test_folders_without_pictures(tmp_path, folder):
    with pytest.raises(UsageError, match=r"no folder .*none.*styles=procedural"):
        open_styles(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no style pictures"):
        FDAStyle(styles=str(tmp_path / "empty"))
    (folder / "a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        StyleFolder(folder).pick(30, Size(8, 8), _rng())


def test_textures_differ_and_repeat_with_the_generator():
    styles = ProceduralStyles()
    first, again, other = (styles.pick(4, Size(8, 8), _rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first[0], first[1])
    assert first.min() >= 0
    assert first.max() <= 1


def test_textures_have_the_spectrum_of_pictures():
    """Amplitudes fall with the frequency, and no picture is flat."""
    textures = ProceduralStyles().pick(32, Size(8, 8), _rng()).mean(1)
    amplitude = torch.fft.rfft2(textures).abs()[:, 0]
    low, middle, high = amplitude[:, 1:4].mean(), amplitude[:, 6:14].mean(), amplitude[:, 30:60].mean()
    assert low > 2 * middle > 8 * high
    assert textures.std((1, 2)).min() > 0.03


def test_fda_with_styles_is_fda_of_the_picked_pictures(folder):
    source = torch.rand(3, 3, 24, 40, generator=_rng(5))
    pictures = StyleFolder(folder).pick(3, Size(24, 40), _rng(7))
    engine = FDAStyle(styles=str(folder), beta=0.1)
    assert not engine.paired
    assert torch.equal(engine(source, None, _rng(7)), fda(source, pictures, 0.1).clamp(0, 1))
