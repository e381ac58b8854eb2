"""RandAugment against Pillow, on which the published pools are written; what moves an image moves its labels."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from udabench.augment import randaugment
from udabench.augment.randaugment import GREY, POOL, RandAugment, StrongView

HEIGHT, WIDTH = 40, 60
NAMES = list(POOL)


def picture(seed=0):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
    return small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


def view_of(matrix, hidden=(0.0, 0.0, 0.0, 0.0), image=None):
    theta = randaugment._normalised(matrix, HEIGHT, WIDTH)[None].float()
    return StrongView(image if image is not None else tensor(picture())[None], theta, torch.tensor([hidden]))


# Published strengths at a level of 6: 0.9 * 0.6 + 0.05 = 0.59; 4 + int(2.4) = 6 bits; 256 - 153 = 103.
COLORS = {
    "autocontrast": ImageOps.autocontrast,
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(0.59),
    "color": lambda image: ImageEnhance.Color(image).enhance(0.59),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.59),
    "equalize": ImageOps.equalize,
    "posterize": lambda image: ImageOps.posterize(image, 6),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(0.59),
    "solarize": lambda image: ImageOps.solarize(image, 103),
}


@pytest.mark.parametrize("name", COLORS)
def test_colours_are_pillows(name):
    image = picture().point(lambda value: 40 + value * 5 // 8)
    mine = POOL[name].color(tensor(image), 6)
    theirs = tensor(COLORS[name](image))
    # Posterised values are spread from 0 to 1 minus a step in both; Pillow rounds each of its steps to a byte.
    limit = 2.5 / 255
    assert (mine - theirs).abs().max() <= limit
    assert (mine - tensor(image)).abs().max() > limit


# At level 5: 15 degrees, shears of 0.15, shifts of int(0.15 * length).
AFFINE = {
    "shear-x": (1, 0.15, 0, 0, 1, 0),
    "shear-y": (1, 0, 0, 0.15, 1, 0),
    "translate-x": (1, 0, 9, 0, 1, 0),
    "translate-y": (1, 0, 0, 0, 1, 6),
}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", [*AFFINE, "rotate"])
def test_places_are_pillows(name, sign):
    ids = Image.fromarray(np.arange(1, HEIGHT * WIDTH + 1, dtype=np.int32).reshape(HEIGHT, WIDTH))
    if name == "rotate":
        theirs = ids.rotate(sign * 15, resample=Image.Resampling.NEAREST)
    else:
        a, b, c, d, e, f = AFFINE[name]
        data = (a, sign * b, sign * c, sign * d, e, sign * f)
        theirs = ids.transform(ids.size, Image.Transform.AFFINE, data, resample=Image.Resampling.NEAREST)
    view = view_of(POOL[name].place(sign * 5, HEIGHT, WIDTH))
    mine = view.carry(torch.from_numpy(np.array(ids)).float()[None, None])[0, 0]
    same = mine == torch.from_numpy(np.array(theirs)).float()
    assert same.float().mean() > 0.99  # ties at cell borders may fall either way
    assert torch.equal(mine != 0, view.shown(HEIGHT, WIDTH)[0])


def test_the_pool_is_fixmatchs():
    assert len(POOL) == 14
    assert {name for name in NAMES if POOL[name].place} == {*AFFINE, "rotate"}
    assert POOL["identity"] == (None, None)


def test_movements_are_put_together_in_their_order():
    """Shear after a rotation: the sheared image is read from the rotated one."""
    rotate, shear = (POOL[name].place(4, HEIGHT, WIDTH) for name in ("rotate", "shear-x"))
    image = tensor(picture())[None]
    once = view_of(rotate @ shear).carry(image, "bilinear")
    twice = view_of(shear).carry(view_of(rotate).carry(image, "bilinear"), "bilinear")
    other = view_of(shear @ rotate).carry(image, "bilinear")
    inside = view_of(shear).carry(view_of(rotate).shown(HEIGHT, WIDTH)[:, None].float())[0, 0] > 0
    assert (once - twice)[0, :, inside].abs().mean() < 0.02 < (other - twice)[0, :, inside].abs().mean()


def test_a_map_on_a_coarser_grid_moves_alike():
    """A mirror is exact on any grid."""
    view = view_of(randaugment._matrix(-1, 0, WIDTH, 0, 1, 0))
    for grid in ((HEIGHT, WIDTH), (HEIGHT // 4, WIDTH // 4), (3, 5)):
        value = torch.rand(1, 2, *grid)
        assert torch.equal(view.carry(value), value.flip(3))
        assert view.shown(*grid).all()


def test_labels_are_unknown_where_nothing_is_shown():
    """Three columns to the right, of four; the lower row is cut out."""
    label = torch.tensor([[[0, 7, 255, 3], [1, 1, 1, 1]]])
    theta = torch.tensor([[[1.0, 0.0, -1.5], [0.0, 1.0, 0.0]]])
    view = StrongView(torch.zeros(1, 3, 2, 4), theta, torch.tensor([[-1.0, 0.0, 1.0, 1.0]]))
    assert view.carry_labels(label).tolist() == [[[255, 255, 255, 0], [255] * 4]]
    view = view._replace(theta=torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]]))
    assert view.carry_labels(label).tolist() == [[[7, 255, 3, 255], [255] * 4]]


def test_the_square_that_is_cut_out():
    """The centre at (0.5, 0.25) of 60 x 40: a square of 13 from (23, 3), in whole pixels."""
    box = randaugment._square(0.5, 0.25, 13, HEIGHT, WIDTH)
    shown = view_of(randaugment._matrix(1, 0, 0, 0, 1, 0), box).shown(HEIGHT, WIDTH)[0]
    expected = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    expected[3:16, 23:36] = False
    assert torch.equal(shown, expected)
    # Beyond the upper left border it moves in, beyond the lower right one it is smaller.
    assert randaugment._square(0, 0, 12, HEIGHT, WIDTH) == pytest.approx((-1, -1, 24 / 60 - 1, 24 / 40 - 1))
    assert randaugment._square(0.999, 0.999, 12, HEIGHT, WIDTH) == pytest.approx(
        (2 * 53 / 60 - 1, 2 * 33 / 40 - 1, 1, 1)
    )


def test_views_show_grey_where_they_show_nothing():
    image = torch.rand(6, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    view = RandAugment()(image, torch.Generator().manual_seed(1))
    shown = view.shown(HEIGHT, WIDTH)
    assert 0 < (~shown).float().mean() < 0.6
    hidden = view.image.permute(0, 2, 3, 1)[~shown]
    assert torch.allclose(hidden, torch.tensor(GREY))
    assert (view.image >= 0).all()
    assert (view.image <= 1).all()
    # A third of the shorter side is cut out, less where the border cuts the square.
    side = HEIGHT // 3
    sizes = (view.hidden[:, 2:] - view.hidden[:, :2]) * torch.tensor([WIDTH, HEIGHT]) / 2
    assert (sizes <= side + 1e-4).all()
    assert torch.isclose(sizes, torch.tensor(float(side))).any()


def test_chances_and_what_is_switched_off():
    image = torch.rand(4, 3, HEIGHT, WIDTH)
    nothing = RandAugment(chance=0, cutout=0)(image, torch.Generator().manual_seed(0))
    assert torch.allclose(nothing.image, image, atol=1e-5)
    assert nothing.shown(7, 9).all()
    mirrored = RandAugment(operations=0, chance=1, cutout=0)(image, torch.Generator().manual_seed(0))
    assert torch.allclose(mirrored.image, image.flip(3), atol=1e-5)


def test_the_view_is_a_function_of_the_generator():
    image = torch.rand(4, 3, HEIGHT, WIDTH)
    first, again, other = (RandAugment()(image, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.theta, other.theta)


def test_ranks_draw_what_one_process_draws(monkeypatch):
    image = torch.rand(4, 3, HEIGHT, WIDTH)
    whole = RandAugment()(image, torch.Generator().manual_seed(5))
    monkeypatch.setattr(randaugment, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(randaugment, "own", lambda rows, rank=rank: rows[2 * rank : 2 * rank + 2])
        part = RandAugment()(image[2 * rank : 2 * rank + 2], torch.Generator().manual_seed(5))
        assert torch.equal(part.image, whole.image[2 * rank : 2 * rank + 2])
