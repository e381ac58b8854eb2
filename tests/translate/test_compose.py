"""Chains and choices, and how engines are built from a configuration."""

import pytest
import torch

from udabench import world
from udabench.data.whole import whole_images
from udabench.errors import PluginError, UsageError
from udabench.hookspecs import Entry
from udabench.method import Batch, Context
from udabench.registry import Catalogue
from udabench.size import Size
from udabench.translate import register_translators
from udabench.translate.apply import cut, translate_source
from udabench.translate.base import Translator
from udabench.translate.build import build_translator, check_names
from udabench.translate.fda import FDA


class Add(Translator):
    """Adds an amount: shows which engines ran, in which order."""

    paired = False

    def __init__(self, amount: float = 0.0, factor: float = 1.0) -> None:
        super().__init__()
        self.amount, self.factor = amount, factor

    def forward(self, source, target, rng):
        return source * self.factor + self.amount

    def check(self, names):
        if self.amount < 0:
            raise UsageError(f"no {list(names)}")


@pytest.fixture(scope="module")
def catalogue():
    found = Catalogue("translator")
    for name, entry in register_translators().items():
        found.add(name, entry, "udabench")
    found.add("add", Entry(Add), "here")
    found.add("no_engine", Entry(dict), "here")
    return found


def _random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_a_chain_goes_through_its_engines_in_order(catalogue):
    engines = [{"name": "add", "amount": 1.0}, "identity", {"name": "add", "factor": 3.0}]
    chain = build_translator(catalogue, "chain", {"engines": engines})
    assert not chain.paired
    assert torch.equal(chain(torch.zeros(1, 3, 2, 2), None, torch.Generator()), torch.full((1, 3, 2, 2), 3.0))


def test_a_chain_is_paired_if_one_engine_is_and_gives_it_the_target(catalogue):
    chain = build_translator(
        catalogue, "chain", {"engines": [{"name": "add", "factor": 0.5}, {"name": "fda", "beta": 0.1}]}
    )
    assert chain.paired
    source, target = _random(2, 3, 16, 16), 1 - _random(2, 3, 16, 16)
    rng = torch.Generator()
    assert torch.equal(chain(source, target, rng), FDA(0.1)(source * 0.5, target, rng))


def test_the_first_engine_of_a_chain_sees_the_context(catalogue):
    chain = build_translator(
        catalogue, "chain", {"engines": [{"name": "fda", "beta": 0.1}, {"name": "add", "factor": 0.5}]}
    )
    image = _random(2, 3, 16, 24)
    source = Context(image, torch.tensor([0, 8]), torch.tensor([16, 3]))
    target = source._replace(image=1 - image)
    crops = [whole_images(cut(each, Size(8, 8)))._replace(context=each) for each in (source, target)]
    whole = FDA(0.1)(source.image, target.image, torch.Generator())
    expected = cut(source._replace(image=whole), Size(8, 8)) * 0.5
    assert torch.equal(translate_source(chain, Batch(*crops), torch.Generator()), expected)


def test_a_choice_takes_each_engine_equally_often(catalogue):
    engines = [{"name": "add", "amount": float(i)} for i in range(3)]
    choice = build_translator(catalogue, "choice", {"engines": engines})
    rng, image = torch.Generator().manual_seed(0), torch.zeros(2, 3, 2, 2)
    found = torch.stack([choice(image, None, rng).unique() for _ in range(300)]).flatten()
    assert torch.bincount(found.int()).tolist() == pytest.approx([100, 100, 100], abs=25)


def test_what_a_part_lacks_is_told(catalogue):
    engines = ["identity", {"name": "choice", "engines": [{"name": "add", "amount": -1.0}]}]
    with pytest.raises(UsageError, match=r"no \['a'\]"):
        check_names(build_translator(catalogue, "chain", {"engines": engines}), ["a"])


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("chain", {}, "'chain' takes a list of engines, not None"),
        ("choice", {"engines": "fda"}, "'choice' takes a list of engines, not 'fda'"),
        ("chain", {"engines": [{"beta": 1}]}, "An engine is a name or"),
        ("chain", {"engines": ["fad"]}, "Unknown translator 'fad'. Did you mean 'fda'"),
        ("chain", {"engines": [{"name": "fda", "bta": 1}]}, "option of translator fda: 'bta'. Did you mean 'beta'"),
        ("fda", {"beta": "much"}, "'fda' does not take these options"),
        ("identity", {"beta": 1}, "'identity' does not take these options"),
        ("folder", {}, "'folder' needs path. Say it: translator_options={path: ...}"),
    ],
)
def test_bad_options(catalogue, name, options, error):
    with pytest.raises(UsageError, match=error):
        build_translator(catalogue, name, options)


def test_what_is_no_engine(catalogue):
    with pytest.raises(PluginError, match="no subclass of Translator"):
        build_translator(catalogue, "no_engine", {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("color_jitter", {}), ("gaussian_blur", {}), ("fda_style", {"beta": 0.1}), ("cartoon", {}),
        *(("weather", {"kinds": [kind]}) for kind in ("fog", "rain", "snow")),
        ("choice", {"engines": ["cartoon", "weather"]}),
    ],
)  # fmt: skip
def test_two_processes_translate_as_one(catalogue, name, options, monkeypatch):
    """Each of two ranks, with its half of the images, gets the half of what one process gets."""
    engine = build_translator(catalogue, name, options)
    image = _random(4, 3, 24, 32)
    alone = engine(image, None, torch.Generator().manual_seed(6))
    monkeypatch.setattr(world, "world_size", lambda: 2)
    monkeypatch.setattr("udabench.translate.draws.world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(world, "rank", lambda rank=rank: rank)
        half = engine(image[2 * rank : 2 * rank + 2], None, torch.Generator().manual_seed(6))
        torch.testing.assert_close(half, alone[2 * rank : 2 * rank + 2], atol=1e-6, rtol=0)
