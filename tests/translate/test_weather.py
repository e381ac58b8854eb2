"""Weather and cartoon: what each does to a picture, and that the generator alone decides."""

import math

import pytest
import torch

from udabench.errors import UsageError
from udabench.translate.cartoon import Cartoon, draw_lines, saturate, smooth
from udabench.translate.weather import DROP, KINDS, Weather, add_fog, add_rain, add_snow


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


IMAGE = torch.rand(3, 3, 40, 64, generator=_rng(9))


@pytest.mark.parametrize("engine", [Weather([kind]) for kind in ("fog", "rain", "snow")] + [Cartoon()], ids=repr)
@pytest.mark.parametrize("shape", [(2, 3, 40, 64), (1, 3, 17, 9), (1, 3, 8, 8)], ids=str)
def test_images_of_any_size_stay_in_range_and_repeat(engine, shape):
    image = torch.rand(*shape, generator=_rng(1))
    state = torch.get_rng_state()
    first, again, other = (engine(image, None, _rng(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, image)
    assert (first.shape, first.dtype) == (image.shape, torch.float32)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("engine", [Weather(), Cartoon()], ids=repr)
def test_autocast_changes_nothing(engine):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = engine(IMAGE, None, _rng())
    assert torch.equal(result, engine(IMAGE, None, _rng()))


def test_images_get_weather_of_their_own():
    same = IMAGE[:1].expand(2, -1, -1, -1)
    for kind in ("fog", "rain", "snow"):
        one, other = Weather([kind])(same, None, _rng())
        assert not torch.allclose(one, other)


def test_kinds_are_drawn_in_equal_parts(monkeypatch):
    for number, kind in enumerate(KINDS):
        monkeypatch.setitem(KINDS, kind, lambda image, rng, number=number: image + number)
    engine, rng, image = Weather(), _rng(), torch.zeros(1, 3, 1, 1)
    found = torch.stack([engine(image, None, rng)[0, 0, 0, 0] for _ in range(300)])
    assert torch.bincount(found.int()).tolist() == pytest.approx([100, 100, 100], abs=25)


def test_fog_is_the_formula_on_a_flat_picture():
    """(x + c f) x / (x + c): where f reaches 1 the value is x again, where it is 0 it is x^2 / (x + c)."""
    x = 0.6
    low, high = add_fog(torch.full((1, 3, 32, 32), x), _rng(3)).aminmax()
    assert high == pytest.approx(x, abs=1e-6)
    c = x * x / low.item() - x
    assert 1 <= c <= 2.5


def test_rain_leaves_a_darkened_scene_between_the_drops():
    x = 0.5
    result = add_rain(torch.full((1, 3, 64, 64), x), _rng(2))
    dark, wet = result.unique().tolist()
    assert 0.6 * x <= dark <= x
    share = (wet - dark) / (DROP - dark)
    assert 0.4 <= share <= 0.9
    assert 0.02 < (result == wet).float().mean() < 0.25


def test_snow_only_brightens():
    assert (add_snow(IMAGE, _rng()) >= IMAGE).all()


@pytest.mark.parametrize("kinds", ["fog", [], ["fog", "hail"]])
def test_unknown_weather(kinds):
    with pytest.raises(UsageError, match=r"weather.*fog, rain, snow"):
        Weather(kinds)


def test_smoothing_is_a_bilateral_filter():
    image = torch.rand(1, 3, 9, 9, generator=_rng(3)).double()
    tolerance, y, x = 0.4, 4, 5
    weights, total = 0.0, torch.zeros(3, dtype=torch.float64)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            near = image[0, :, y + dy, x + dx]
            distance = (near - image[0, :, y, x]).abs().sum().item()
            w = math.exp(-0.5 * (distance / tolerance) ** 2 - 0.5 * (dy * dy + dx * dx) / 4)
            weights, total = weights + w, total + w * near
    found = smooth(image, torch.tensor([tolerance], dtype=torch.float64), 1)[0, :, y, x]
    torch.testing.assert_close(found, total / weights)


def test_colours_by_hand():
    pixel = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    grey = 0.2989 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3
    expected = [grey + 2 * (v - grey) for v in (0.5, 0.4, 0.3)]
    assert saturate(pixel, torch.tensor([2.0])).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_lines_are_drawn_on_the_dark_side_of_an_edge():
    image = torch.full((1, 3, 20, 20), 0.9)
    image[..., 10:] = 0.1
    lines = draw_lines(image, torch.tensor([0.05]))[0, 0]
    # A mean over 9 columns reaches the bright side from up to 4 columns away.
    assert lines[:, 10:14].all()
    assert not lines[:, :10].any()
    assert not lines[:, 14:].any()
    assert not draw_lines(image, torch.tensor([1.0])).any()


@pytest.mark.parametrize("options", [{"passes": 0}, {"lines": 0}])
def test_cartoons_out_of_bounds(options):
    with pytest.raises(UsageError, match="cartoon's"):
        Cartoon(**options)
