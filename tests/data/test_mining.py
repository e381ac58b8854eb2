"""Crops around rare classes: which, where, how often, and the same ones after a restart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from udabench.config import DataConfig
from udabench.data.batches import BatchFunction
from udabench.data.build import Builder
from udabench.data.crop import Window, place_around
from udabench.data.mining import Mined
from udabench.data.randomness import rng_at
from udabench.errors import PluginError
from udabench.labels import CITYSCAPES19
from udabench.method import Mining, Stage
from udabench.size import Size


class Spots:
    """Pseudo-labels of 64x96: class 3, with a spot of class 6 at one place of odd samples and 16 at another of all."""

    SIX, SIXTEEN = (5, 90), (60, 20)

    def read(self, name: str) -> Tensor:
        labels = torch.full((64, 96), 3)
        labels[self.SIXTEEN] = 16
        if int(name[-1]) % 2:
            labels[self.SIX] = 6
        return labels


def function_of(data, mined: tuple[int, ...], chance: float = 1.0, context: Size | None = None, **config):
    stage = Stage(
        "train", 10, lambda *_: iter(()), {}, layers={"pseudo": ("target", "pseudo_label")}, context=context,
        mining=Mining("pseudo", "mined", chance),
    )  # fmt: skip
    values = DataConfig(**{"crop": "32x24", "crop_max_ratio": 1.0, **config})
    return Builder(5, values, CITYSCAPES19, data(), data()).stage(stage, {"pseudo": Spots()}, mined)


def share_with(function: BatchFunction, wanted: int, batches: int = 40) -> float:
    layers = torch.cat([function(i).target.layers["pseudo"] for i in range(batches)])
    return float((layers == wanted).flatten(1).any(1).float().mean())


def test_a_crop_is_centred_on_the_pixel_and_stays_in_the_image() -> None:
    place = place_around((30, 50), Size(64, 96), Size(24, 32), None, rng_at(0))
    assert place.crop == place.context == Window(18, 34, 24, 32)
    corners = {(0, 0): (0, 0), (63, 95): (40, 64), (12, 16): (0, 0), (13, 17): (1, 1), (52, 80): (40, 64)}
    for pixel, corner in corners.items():
        assert place_around(pixel, Size(64, 96), Size(24, 32), None, rng_at(0)).crop[:2] == corner


def test_the_context_lies_anywhere_around_a_mined_crop() -> None:
    tops, lefts = set(), set()
    for i in range(200):
        crop, context = place_around((30, 90), Size(64, 96), Size(24, 32), Size(48, 40), rng_at(i))
        assert crop == Window(18, 64, 24, 32)
        assert context[2:] == (48, 40)
        tops.add(context.top)
        lefts.add(context.left)
    assert tops == set(range(17))
    assert lefts == {56}


def test_mined_crops_show_a_mined_class_wherever_the_image_has_one(coordinates) -> None:
    # Samples 1 and 3 of five show class 6; the others are cropped as always, and never show it.
    assert share_with(function_of(coordinates, (6,)), 6) == pytest.approx(0.4)
    assert share_with(function_of(coordinates, (16,)), 16) == 1
    assert share_with(function_of(coordinates, (12,)), 16) < 0.3


def test_the_chance_is_that_of_a_crop(coordinates) -> None:
    usual = share_with(function_of(coordinates, ()), 16, 200)
    assert share_with(function_of(coordinates, (16,), 0.8), 16, 200) == pytest.approx(0.8 + 0.2 * usual, abs=0.04)
    assert share_with(function_of(coordinates, (16,), 0.0), 16, 200) == pytest.approx(usual, abs=0.06)


def test_classes_have_the_same_chance_and_so_have_the_pixels_of_one() -> None:
    labels = torch.zeros(4, 5, dtype=torch.long)
    labels[0] = 1
    labels[3, 4] = 2
    found = [Mined("x", (2, 1, 7), 1.0).find(labels, rng_at(i)) for i in range(600)]
    assert found.count((3, 4)) / 600 == pytest.approx(0.5, abs=0.06)
    assert {found.count((0, column)) // 20 in (2, 3) for column in range(5)} == {True}


def test_mining_is_the_targets_alone_and_draws_the_same_again(coordinates) -> None:
    plain, mined = function_of(coordinates, ()), function_of(coordinates, (16,))
    again = function_of(coordinates, (16,))
    for i in (3, 0, 2):
        assert torch.equal(plain(i).source.image, mined(i).source.image)
        assert plain(i).target.names == mined(i).target.names
        assert torch.equal(mined(i).target.box, again(i).target.box)
        assert not torch.equal(plain(i).target.box, mined(i).target.box)


def test_mined_crops_of_scaled_images_and_with_a_context(coordinates) -> None:
    function = function_of(coordinates, (16,), scale=[1.0, 1.5, 2.0], context=Size(40, 48))
    assert share_with(function, 16, 30) == 1
    # Grown, the pixel is a block, and the crop's middle lies on it where no border is near.
    tall = function_of(coordinates, (16,), scale=[3.0], flip=0.0)
    for i in range(5):
        for box, layer in zip(tall(i).target.box.tolist(), tall(i).target.layers["pseudo"], strict=True):
            row, column = (np.array(Spots.SIXTEEN) * 3 + 1).tolist()
            assert box[:2] == [min(row - 12, 192 - 24), column - 16]
            assert (layer == 16).sum() == 9


def test_what_is_mined_must_be_class_ids(coordinates) -> None:
    with pytest.raises(PluginError, match="layer 'x' is mined for classes, but does not hold class ids H W"):
        Mined("x", (1,), 0.8).find(torch.zeros(2, 4, 4).long(), rng_at(0))
    with pytest.raises(PluginError, match="does not hold class ids"):
        Mined("x", (1,), 0.8).find(torch.zeros(4, 4), rng_at(0))
