"""Toycity: the same pictures everywhere, all classes, and a gap that is not geometry."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from udabench_toycity import dataset as module
from udabench_toycity import register_datasets
from udabench_toycity.camera import Air, Camera, mix, shade
from udabench_toycity.canvas import Canvas, Sprite
from udabench_toycity.dataset import DIGEST, VERSION, ToyCity, ToyCityReal, city_digest, make_scene
from udabench_toycity.dice import Dice
from udabench_toycity.finish import blur, curve
from udabench_toycity.look import GAME, PHOTO, draw_style
from udabench_toycity.placing import place_things
from udabench_toycity.raster import Raster, crossings
from udabench_toycity.street import draw_street

from udabench.errors import DataError
from udabench.labels import TAIL
from udabench.registry import Registry

CAMERA = Camera(height=1.5, focal=500.0, horizon=100.0, center=256.0)


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    return {look.__name__: [make_scene(look.look, 0, i) for i in range(60)] for look in (ToyCity, ToyCityReal)}


def test_pixels_are_frozen() -> None:
    assert city_digest() == DIGEST, "the pictures have changed: raise VERSION and state the new digest"


def test_another_process_and_order_draw_the_same() -> None:
    code = (
        "from udabench_toycity.dataset import *; from udabench_toycity.look import *; import hashlib;"
        "a = [hashlib.sha256(make_scene(PHOTO, 5, i)[0].tobytes()).hexdigest() for i in (7, 3)]; print(*a)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = [sha256(make_scene(PHOTO, 5, i)[0].tobytes()).hexdigest() for i in (3, 7)]
    assert here == other[::-1]


def test_importing_the_plugin_imports_no_torch() -> None:
    code = "import sys, udabench_toycity; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_both_looks_are_registered() -> None:
    registry = Registry()
    for name, entry in register_datasets().items():
        registry.datasets.add(name, entry, "test")
    assert registry.datasets.get("toycity") is ToyCity
    assert registry.datasets.get("toycity-real") is ToyCityReal


@pytest.mark.parametrize("kind", [ToyCity, ToyCityReal])
def test_contract(kind: type[ToyCity]) -> None:
    data = kind(None, "val", length=2)
    image, label = data.read_image(data.names[1]), data.read_label(data.names[1])
    assert image.shape == (256, 512, 3)
    assert image.dtype == np.uint8
    assert label.shape == (256, 512)
    assert label.dtype == np.uint8
    assert str(kind.train_size) == "256x128"
    assert not kind.needs_root
    assert kind.default_preset == "quick"


def test_splits_seeds_and_looks_share_no_scene() -> None:
    assert len(ToyCity(None, "train")) == 300
    assert len(ToyCity(None, "val")) == 80
    sets = [k(None, s, seed=seed) for k in (ToyCity, ToyCityReal) for s in ("train", "val") for seed in (0, 1)]
    names = [name for data in sets for name in data.names]
    assert len(set(names)) == len(names) == 4 * 380
    images = [data.read_image(data.names[0]).tobytes() for data in sets]
    assert len(set(images)) == len(sets)
    assert all(f"_v{VERSION}_" in name for name in names)


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    assert ToyCity(None, "train", length=400).names[:300] == ToyCity(None, "train").names


def test_image_and_label_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def count(look: object, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(index)
        return np.full((1, 1, 3), index, np.uint8), np.full((1, 1), index, np.uint8)

    monkeypatch.setattr(module, "make_scene", count)
    data = ToyCity(None, "train", length=5)
    for name in data.names:
        data.read_image(name)
        data.read_ids(name)
    assert drawn == [0, 1, 2, 3, 4]


def test_threads_get_their_own_scenes() -> None:
    data = ToyCity(None, "train", length=4)
    wanted = [make_scene(GAME, 0, i)[1] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(data.read_ids, data.names * 3))
    assert all((a == b).all() for a, b in zip(got, wanted * 3, strict=True))


@pytest.mark.parametrize(("options", "match"), [({"seed": -1}, "seed"), ({"length": 0}, "length")])
def test_impossible_options(options: dict[str, int], match: str) -> None:
    with pytest.raises(DataError, match=match):
        ToyCity(None, "train", **options)


def test_a_strange_name() -> None:
    data = ToyCity(Path("anything"), "val")
    for name in ("nothing", "photo_v1_s0_1000000", data.names[0].replace("_s0_", "_s1_")):
        with pytest.raises(DataError, match="no scene"):
            data.read_image(name)


def test_every_class_occurs_and_the_tail_is_rare(scenes: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    for drawn in scenes.values():
        labels = np.stack([label for _, label in drawn])
        share = np.bincount(labels.ravel(), minlength=19) / labels.size
        assert len(share) == 19
        assert (share > 0.001).all()
        assert (share[list(TAIL)] < 0.03).all()
        assert share[[0, 2]].min() > 0.15
        # A street: the lowest rows are road, the highest hold no ground.
        assert (labels[:, -1] == 0).mean() > 0.5
        assert not np.isin(labels[:, 0], (0, 1, 9)).any()


def test_the_gap_is_appearance(scenes: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    game, photo = (np.stack([image for image, _ in drawn]).astype(np.int32) for drawn in scenes.values())
    colorful = [(images.max(-1) - images.min(-1)).mean() for images in (game, photo)]
    sharp = [np.abs(np.diff(images, axis=2)).mean() for images in (game, photo)]
    warm = [(images[..., 0] - images[..., 2]).mean() for images in (game, photo)]
    assert colorful[0] > 1.5 * colorful[1]
    assert sharp[0] > 1.3 * sharp[1]
    assert warm[1] > warm[0] + 5
    # The layout is one distribution: the big classes' shares agree within a few percent of the picture.
    shares = [np.bincount(np.stack([y for _, y in drawn]).ravel(), minlength=19) for drawn in scenes.values()]
    assert np.abs(shares[0] / shares[0].sum() - shares[1] / shares[1].sum()).max() < 0.06


def test_dice_are_numpys_uniform_numbers() -> None:
    dice = Dice(3, 1, 4)
    ours = [dice.unit() for _ in range(256)]
    numpys = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 1, 4]))).random(256)
    assert ours[::-1] == numpys.tolist()


def test_weighted_dice_follow_their_weights() -> None:
    dice = Dice(1)
    drawn = [dice.weighted({"a": 3.0, "b": 1.0}) for _ in range(4000)]
    assert drawn.count("a") / 4000 == pytest.approx(0.75, abs=0.03)
    assert {dice.whole(2, 4) for _ in range(100)} == {2, 3, 4}


def test_camera_and_air_by_hand() -> None:
    # 2 m right and on the ground, 10 m ahead: 50 pixels a metre.
    assert CAMERA.point(2.0, 0.0, 10.0) == (356, 175)
    assert CAMERA.point(0.0, 1.5, 33.0) == (256, 100)
    assert CAMERA.sees(0.0, 5.0, 1.0)
    assert not CAMERA.sees(10.0, 10.0, 1.0)
    air = Air((200, 200, 200), 100.0)
    assert air.clear(0.0) == 256
    assert air.clear(100.0) == 102  # 256 / (1 + 1 + 1 / 2)
    assert air.through((0, 100, 200), 100.0) == ((200 * 154) >> 8, (100 * 102 + 200 * 154) >> 8, 200)
    assert shade((100, 200, 10), 150) == (150, 255, 15)
    assert mix((0, 0, 0), (128, 64, 32), 0.5) == (64, 32, 16)


def test_a_figure_twice_as_far_is_half_as_tall() -> None:
    canvas = Canvas(np.zeros((4, 256, 512), np.uint8), CAMERA, Air((0, 0, 0), 1e9))
    for z, label in ((10.0, 11), (20.0, 12)):
        Sprite(canvas, 0.0 if label == 11 else 3.0, z, label).rect(-0.5, 0.0, 0.5, 2.0, (255, 255, 255))
    rows = [(canvas.planes()[3] == label).any(1).sum() for label in (11, 12)]
    assert rows == [101, 51]


def test_polygons_by_hand() -> None:
    assert crossings([(0, 0), (4, 0), (4, 2), (0, 2)]) == (0, [0, 0, 0], [4, 4, 4])
    # x = 1.5 y: 0, 1.5, 3, 4.5, 6; halves round up.
    assert crossings([(0, 0), (6, 4), (0, 4)]) == (0, [0, 0, 0, 0, 0], [0, 2, 3, 5, 6])
    assert crossings([(0, -2), (4, -2), (4, 1), (0, 1)])[0] == 0
    raster = Raster(np.uint8)
    raster.polygon([(-5, -5), (2, -5), (2, 1), (-5, 1)], 7)
    assert (raster.pixels == 7).sum() == 6
    raster.polygon([(600, 10), (700, 10), (650, 60)], 9)
    assert not (raster.pixels == 9).any()


def test_ellipses_and_lines_by_hand() -> None:
    raster = Raster(np.uint8)
    raster.ellipse(10, 10, 30, 30, 1)
    y, x = np.mgrid[0:256, 0:512]
    disc = (x - 20) ** 2 + (y - 20) ** 2 <= 10.5**2
    # Exact up to single pixels of the rim.
    assert ((raster.pixels == 1) != disc).sum() <= 8
    assert (raster.pixels[20, 10:31] == 1).all()
    raster.line(100, 50, 106, 53, 2)
    assert (raster.pixels == 2).sum() == 7
    # A disc beyond the left edge whose upper rows are outside: nothing may wrap to the other side.
    raster.ellipse(-40, -2, 0, 38, 4)
    assert (raster.pixels == 4).sum() < 20
    raster.line(-3, 0, 3, 0, 3)
    assert (raster.pixels == 3).sum() == 4


@pytest.mark.parametrize("variance", [0.15, 0.5, 0.9, 1.4])
def test_blur_has_the_stated_variance(variance: float) -> None:
    plane = np.zeros((256, 512), np.uint8)
    plane[:, 256] = 255
    row = blur(plane, variance)[128].astype(float)
    measured = (row * (np.arange(512) - 256) ** 2).sum() / row.sum()
    assert measured == pytest.approx(variance, rel=0.12)


def test_tone_curve() -> None:
    assert curve(1.0, 1.0, 0.5).tolist() == list(range(256))
    # Schlick's bias maps one half to the parameter: 127.5 / 255 -> 0.6.
    assert curve(1.0, 1.0, 0.6)[127:129].mean() == pytest.approx(0.6 * 255, abs=1)
    # Contrast turns about the middle, 118; gain multiplies.
    assert curve(0.5, 1.0, 0.5)[118] == 118
    assert curve(0.5, 1.0, 0.5)[18] == 68
    assert curve(1.0, 1.1, 0.5)[100] == 110


def test_vehicles_in_a_lane_do_not_overlap() -> None:
    for i in range(40):
        dice = Dice(9, i)
        style = draw_style(PHOTO, dice)
        street = draw_street(dice, style)
        moving = [t for t in place_things(dice, street, style) if t.kind in ("car", "truck", "bus", "train") and t.turn]
        for x in (*street.oncoming, street.own):
            lane = sorted((t.z, t.z + t.length) for t in moving if abs(t.x - x) < 0.5)
            assert all(a[1] <= b[0] for a, b in pairwise(lane))
