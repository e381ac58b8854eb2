"""The other engines, and how a batch is translated."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from udabench.errors import DataError, UsageError
from udabench.method import Batch, Context, Samples
from udabench.plugins import KINDS
from udabench.registry import Catalogue
from udabench.size import Size
from udabench.translate import register_translators
from udabench.translate.apply import cut, translate_source
from udabench.translate.base import Translator
from udabench.translate.fda import FDA, fda
from udabench.translate.folder import Folder
from udabench.translate.identity import Identity
from udabench.translate.photometric import ColorJitter, GaussianBlur


def _samples(image, context=None, **other):
    count, _, height, width = image.shape
    fields = {
        "image": image, "label": None, "names": tuple("abcd"[:count]), "valid": None,
        "box": torch.tensor([[0, 0, height, width]] * count), "size": Size(height, width),
        "flipped": torch.zeros(count, dtype=torch.bool), "layers": {}, "context": context,
    }  # fmt: skip
    return Samples(**fields | other)


def _random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _context(seed):
    image = _random(2, 3, 16, 24, seed=seed)
    return Context(image, torch.tensor([0, 8]), torch.tensor([16, 3]))


def test_every_registered_engine_can_be_imported():
    catalogue = Catalogue("translator")
    assert "translators" in KINDS
    for name, entry in register_translators().items():
        catalogue.add(name, entry, "udabench")
        assert issubclass(catalogue.get(name), Translator)
        assert entry.summary


def test_registering_imports_no_torch():
    code = "import sys, udabench.translate as t; t.register_translators(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cut_takes_each_crop_from_its_place():
    context = _context(1)
    crops = cut(context, Size(8, 8))
    assert torch.equal(crops[0], context.image[0, :, 0:8, 16:24])
    assert torch.equal(crops[1], context.image[1, :, 8:16, 3:11])


def test_fda_works_on_the_contexts_before_the_crop():
    source, target = _context(1), _context(2)
    batch = Batch(_samples(cut(source, Size(8, 8)), source), _samples(cut(target, Size(8, 8)), target))
    translated = translate_source(FDA(0.1), batch, torch.Generator())
    whole = fda(source.image, target.image, 0.1).clamp(0, 1)
    assert torch.equal(translated, cut(source._replace(image=whole), Size(8, 8)))
    plain = Batch(batch.source._replace(context=None), batch.target._replace(context=None))
    crops = translate_source(FDA(0.1), plain, torch.Generator())
    assert torch.equal(crops, fda(batch.source.image, batch.target.image, 0.1).clamp(0, 1))


def test_a_paired_engine_without_targets_is_refused():
    batch = Batch(_samples(_random(1, 3, 4, 4)), None)
    with pytest.raises(ValueError, match="FDA needs target images"):
        translate_source(FDA(), batch, torch.Generator())
    assert torch.equal(translate_source(Identity(), batch, torch.Generator()), batch.source.image)


@pytest.mark.parametrize("engine", [ColorJitter(), GaussianBlur()])
def test_unpaired_engines_repeat_with_the_generator_and_change_images_by_chance(engine):
    image = _random(300, 3, 6, 6)
    first, again = (engine(image, None, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    changed = (first != image).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(engine.chance, abs=0.08)
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize(
    ("engine", "options"), [(ColorJitter, {"strength": 9}), (ColorJitter, {"chance": 2}), (GaussianBlur, {"low": 0})]
)
def test_bounds_of_photometric_engines(engine, options):
    with pytest.raises(UsageError, match="must lie in"):
        engine(**options)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def test_folder_cuts_and_flips_as_the_source_image(folder):
    samples = _samples(
        torch.zeros(2, 3, 4, 6),
        box=torch.tensor([[0, 0, 4, 6], [4, 5, 4, 6]]),
        size=Size(8, 12),
        flipped=torch.tensor([False, True]),
    )
    translated = translate_source(Folder(str(folder)), Batch(samples, None), torch.Generator())
    pixels = [torch.from_numpy(np.array(Image.open(folder / f"{n}.png"))).permute(2, 0, 1) / 255 for n in "ab"]
    assert torch.equal(translated[0], pixels[0][:, 0:4, 0:6])
    assert torch.equal(translated[1], pixels[1][:, 4:8, 5:11].flip(-1))


def test_folder_names_what_is_missing_before_the_training(folder):
    engine = Folder(str(folder))
    engine.check(["a", "b"])
    with pytest.raises(DataError, match="lacks the translated pictures of 2 of 3 training images: 'c', 'd/e'"):
        engine.check(["a", "c", "d/e"])
    with pytest.raises(DataError, match=r"of 30 of 30 training images: 'n0', 'n1', 'n2', 'n3', 'n4', \.\.\."):
        engine.check([f"n{i}" for i in range(30)])


def test_folder_errors_name_the_file(folder):
    with pytest.raises(UsageError, match="finds no folder"):
        Folder(str(folder / "none"))
    engine = Folder(str(folder))
    with pytest.raises(UsageError, match="by name"):
        engine(torch.zeros(1, 3, 4, 4), None, torch.Generator())
    samples = _samples(torch.zeros(1, 3, 8, 12), names=("c",))
    with pytest.raises(DataError, match="no translated image 'c'"):
        engine.translate(samples, None, torch.Generator())
    (folder / "c.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"c\.png cannot be decoded"):
        engine.translate(samples, None, torch.Generator())
