"""Image, label, layers and context are cut from the same place: read off a picture whose pixels are coordinates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from udabench.config import DataConfig
from udabench.data import batches
from udabench.data.batches import BatchFunction, stack, to_device, whole_sample
from udabench.data.build import Builder
from udabench.data.crop import Place, draw_place
from udabench.data.cutter import Cutter
from udabench.data.randomness import rng_at
from udabench.data.resize import Resized
from udabench.data.sampler import Draw
from udabench.errors import DataError, UsageError
from udabench.labels import CITYSCAPES19
from udabench.method import Batch, Samples, Stage
from udabench.run.truth import Truth
from udabench.size import Size


class Coordinates2d:
    """A layer with two channels: row and column."""

    def __init__(self, size: tuple[int, int] = (64, 96)) -> None:
        self.size = size

    def read(self, name: str) -> Tensor:
        rows, columns = torch.meshgrid(*map(torch.arange, self.size), indexing="ij")
        return torch.stack((rows, columns)).float()


def function_of(data, stage: Stage | None = None, layers=None, **config) -> BatchFunction:
    values = {"crop": "32x24", "crop_max_ratio": 1.0, **config}
    builder = Builder(5, DataConfig(**values), CITYSCAPES19, data(), data(count=3))
    return builder.stage(stage or Stage("train", 10, lambda *_: iter(()), {}), layers)


def coordinate_grid(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns that a correct cut of each sample shows, worked out from box and flipped alone."""
    rows, columns = [], []
    for (top, left, height, width), mirrored in zip(samples.box.tolist(), samples.flipped.tolist(), strict=True):
        across = np.arange(left, left + width)
        columns.append(np.tile(across[::-1] if mirrored else across, (height, 1)))
        rows.append(np.tile(np.arange(top, top + height)[:, None], (1, width)))
    return np.stack(rows), np.stack(columns)


def test_image_label_and_layer_show_the_box(coordinates) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, layers={"where": ("source", "where")})
    function = function_of(coordinates, stage, {"where": Coordinates2d()})
    mirrored = set()
    for iteration in range(8):
        samples = function(iteration).source
        assert samples is not None
        assert samples.label is not None
        rows, columns = coordinate_grid(samples)
        np.testing.assert_array_equal(samples.image[:, 0].numpy(), rows)
        np.testing.assert_array_equal(samples.image[:, 1].numpy(), columns)
        np.testing.assert_array_equal(samples.label.numpy(), (rows + columns) % 19)
        np.testing.assert_array_equal(samples.layers["where"].numpy(), np.stack((rows, columns), 1))
        assert [f"sample{blue}" for blue in samples.image[:, 2, 0, 0].tolist()] == list(samples.names)
        assert samples.size == Size(64, 96)
        assert samples.valid is None
        mirrored |= set(samples.flipped.tolist())
    assert mirrored == {True, False}


def test_the_context_holds_the_image_at_its_corner(coordinates) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, context=Size(48, 64))
    function = function_of(coordinates, stage)
    for iteration in range(8):
        for samples in function(iteration):
            assert samples is not None
            assert samples.context is not None
            assert samples.context.image.shape == (2, 3, 48, 64)
            for i, (top, left) in enumerate(zip(samples.context.top, samples.context.left, strict=True)):
                inner = samples.context.image[i, :, top : top + 24, left : left + 32]
                assert torch.equal(inner, samples.image[i])
    rows, columns = coordinate_grid(samples)
    np.testing.assert_array_equal(samples.image[:, 0].numpy(), rows)
    np.testing.assert_array_equal(samples.image[:, 1].numpy(), columns)


def test_flip_chance(coordinates) -> None:
    for chance in (0, 1):
        flipped = [function_of(coordinates, flip=chance)(i).source.flipped for i in range(5)]
        assert torch.cat(flipped).tolist() == [bool(chance)] * 10


def test_wire_types_and_device_types(coordinates) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, context=Size(48, 64))
    wire = function_of(coordinates, stage)(0)
    assert wire.source is not None
    assert wire.source.image.dtype == torch.uint8
    assert wire.source.label.dtype == torch.uint8
    batch = to_device(wire, torch.device("cpu"))
    assert batch.source.label.dtype == torch.int64
    assert torch.equal(batch.source.image, wire.source.image.to(torch.float64).div(255).float())
    assert torch.equal(batch.source.context.image, wire.source.context.image.float() / 255)
    assert batch.source.box.dtype == torch.int64
    assert batch.source.flipped.dtype == torch.bool
    assert batch.target.label is None


def nearest(places: np.ndarray, length: int, scaled: int) -> np.ndarray:
    """Where the centres of a scaled axis' pixels lie on the axis itself."""
    return np.floor((places + 0.5) * (length / scaled) + 1e-9).astype(int)


def test_what_is_scaled_is_scaled_alike(coordinates) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, layers={"where": ("source", "where")})
    function = function_of(coordinates, stage, {"where": Coordinates2d()}, scale=[0.5, 1, 1.5], crop="60x40")
    factors, paddings = set(), set()
    for iteration in range(12):
        samples = function(iteration).source
        assert samples is not None
        assert samples.label is not None
        assert samples.valid is not None
        assert samples.size == Size(64, 96)
        assert torch.equal(samples.whole, samples.scaled)
        rows, columns = coordinate_grid(samples)
        for i, (height, width) in enumerate(samples.whole.tolist()):
            inside = (rows[i] < height) & (columns[i] < width)
            np.testing.assert_array_equal(samples.valid[i].numpy(), inside)
            row, column = nearest(rows[i], 64, height), nearest(columns[i], 96, width)
            np.testing.assert_array_equal(samples.label[i].numpy(), np.where(inside, (row + column) % 19, 255))
            np.testing.assert_array_equal(samples.layers["where"][i].numpy(), np.stack((row, column)) * inside)
            image = samples.image[i].numpy().astype(int)
            assert np.abs(image[0] - row)[inside].max() <= 1
            assert np.abs(image[1] - column)[inside].max() <= 1
            factors.add(height / 64)
            paddings.add((bool(samples.flipped[i]), bool(inside.all())))
    assert factors == {0.5, 1, 1.5}
    assert len(paddings) == 4


def test_there_is_a_mask_of_padding_where_there_may_be_any(coordinates) -> None:
    """Not where there happens to be some: the processes that train together would not agree."""
    never, perhaps = function_of(coordinates, scale="0.8-1.2"), function_of(coordinates, scale="0.3-3", crop="32x24")
    assert all(half.valid is None and half.scaled is not None for i in range(4) for half in never(i))
    assert all(half.valid is not None for i in range(8) for half in perhaps(i))
    assert any(bool(half.valid.all()) for i in range(8) for half in perhaps(i))
    assert all(half.scaled is None for half in function_of(coordinates)(0))


def test_scaled_batches_are_moved_and_joined(coordinates) -> None:
    batch = to_device(function_of(coordinates, scale="0.3-0.6")(0), torch.device("cpu"))
    assert batch.target.valid.shape == (2, 24, 32)
    assert batch.target.scaled.shape == (2, 2)
    assert torch.equal(batch.target.whole, batch.target.scaled)
    assert function_of(coordinates)(0).target.whole.tolist() == [[64, 96]] * 2


def test_the_context_of_a_scaled_crop(coordinates) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, context=Size(48, 64))
    function = function_of(coordinates, stage, scale=[0.6, 1.3])
    for iteration in range(8):
        for samples in function(iteration):
            assert samples is not None
            assert samples.context is not None
            for i, (top, left) in enumerate(zip(samples.context.top, samples.context.left, strict=True)):
                inner = samples.context.image[i, :, top : top + 24, left : left + 32]
                assert torch.equal(inner, samples.image[i])
            assert samples.valid is not None


def test_the_referees_truth_is_what_a_scaled_label_shows(coordinates) -> None:
    """Labels come with the batch where a method may see them; the referee finds the same by itself."""
    config = DataConfig(crop="60x40", scale="0.5-1.5", target_size="90x60")
    builder = Builder(1, config, CITYSCAPES19, coordinates(), coordinates(), target_labels=True)
    function = builder.stage(Stage("train", 10, lambda *_: iter(()), {}))
    truth = Truth(coordinates(), CITYSCAPES19)
    padded = 0
    for iteration in range(6):
        target = function(iteration).target
        assert target is not None
        assert target.label is not None
        assert torch.equal(truth(target), target.label)
        padded += int((~target.valid).any())
    assert 0 < padded < 6


def test_a_domain_that_is_not_asked_for_is_none(coordinates) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, domains=("source",))
    builder = Builder(0, DataConfig(crop="32x24"), CITYSCAPES19, coordinates(), None)
    assert builder.stage(stage)(0).target is None


def same(one: Batch, other: Batch) -> bool:
    return all(
        a.names == b.names and torch.equal(a.image, b.image) and torch.equal(a.box, b.box)
        for a, b in zip(one, other, strict=True)
        if a is not None and b is not None
    )


def test_batches_depend_on_seed_stage_and_iteration_and_on_no_order(coordinates) -> None:
    function = function_of(coordinates)
    forward = [function(i) for i in range(6)]
    backward = [function(i) for i in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert not same(forward[0], forward[1])
    other_stage = function_of(coordinates, Stage("other", 10, lambda *_: iter(()), {}))
    assert not same(forward[0], other_stage(0))
    values = DataConfig(crop="32x24", crop_max_ratio=1.0)
    other_seed = Builder(6, values, CITYSCAPES19, coordinates(), coordinates(count=3))
    assert not same(forward[0], other_seed.stage(Stage("train", 10, lambda *_: iter(()), {}))(0))


def test_processes_that_train_together_share_the_batches_of_one(coordinates) -> None:
    config = DataConfig(crop="32x24", source_batch=4, target_batch=2)
    stage = Stage("train", 10, lambda *_: iter(()), {})

    def function(rank: int, world: int) -> BatchFunction:
        return Builder(0, config, CITYSCAPES19, coordinates(count=6), coordinates(), rank=rank, world=world).stage(
            stage
        )

    alone, ranks = function(0, 1), [function(0, 2), function(1, 2)]
    assert (alone.images, ranks[0].images) == (6, 3)
    for iteration in range(4):
        parts = [share(iteration) for share in ranks]
        joined = Batch(*(stack(list(halves)) for halves in zip(*parts, strict=True)))
        assert same(joined, alone(iteration))


def test_a_batch_that_cannot_be_shared_is_refused(coordinates) -> None:
    config = DataConfig(crop="32x24", source_batch=2, target_batch=3)
    builder = Builder(0, config, CITYSCAPES19, coordinates(), coordinates(), rank=1, world=2)
    with pytest.raises(UsageError, match=r"data\.target_batch = 3 does not divide by the 2 processes"):
        builder.stage(Stage("train", 10, lambda *_: iter(()), {}))
    builder.stage(Stage("train", 10, lambda *_: iter(()), {}, domains=("source",)))


def test_crops_without_variety_are_drawn_again(make_gta5) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, domains=("source",))

    def dominated(ratio: float) -> int:
        config = DataConfig(crop="24x24", source_size="100x60", crop_max_ratio=ratio)
        function = Builder(0, config, CITYSCAPES19, make_gta5(), None).stage(stage)
        labels = torch.cat([function(i).source.label for i in range(40)])
        shares = [torch.bincount(label[label != 255].long(), minlength=19) for label in labels]
        return sum(int(share.max() >= 0.5 * share.sum()) for share in shares)

    assert dominated(0.5) < dominated(1.0) / 3


def test_crops_for_a_rare_class_show_it(make_gta5, tmp_path) -> None:
    values = {"crop": "24x24", "source_size": "100x60", "crop_max_ratio": 1.0, "store": tmp_path / "store"}
    stage = Stage("train", 10, lambda *_: iter(()), {}, domains=("source",))

    def shown(ratio: float) -> float:
        config = DataConfig(sampler="rcs", rcs_min_pixels=200, rcs_min_crop_ratio=ratio, rcs_temperature=0.01, **values)
        half = Builder(0, config, CITYSCAPES19, make_gta5(), None).stage(stage).source
        assert half is not None
        rarest = half.sampler.classes[int(np.argmax(half.sampler.chances))]
        labels = torch.cat([half.samples(0, "train", range(2 * i, 2 * i + 2)).label for i in range(40)])
        return float(((labels == rarest).sum((1, 2)) > 100).float().mean())

    assert shown(0.5) > shown(0.0) + 0.1


@pytest.mark.parametrize(
    ("wanted", "min_wanted", "ratio", "draws"),
    [(1, 5.0, 0.9, 11 * 11), (1, 5.0, 1.0, 11), (None, 5.0, 0.9, 11), (1, 0.0, 0.9, 11), (1, 0.0, 1.0, 1)],
)
def test_each_crop_for_a_class_has_ten_tries_of_its_own_to_be_varied(
    coordinates, monkeypatch, wanted, min_wanted, ratio, draws
) -> None:
    """Of a picture of class 0 alone, no crop is varied and none shows class 1."""
    tries: list[Place] = []

    def counted(*args: Any) -> Place:
        tries.append(draw_place(*args))
        return tries[-1]

    monkeypatch.setattr(batches, "draw_place", counted)
    half = function_of(coordinates, crop_max_ratio=ratio).source
    assert half is not None
    label = np.zeros(half.images.size, np.uint8)
    cutter = Cutter(half.images.size, half.images.size)
    place = replace(half, min_wanted=min_wanted)._place(cutter, label, {}, Draw(0, wanted), rng_at(0))
    assert len(tries) == draws
    assert place == tries[-1]


def test_a_layer_of_another_size_is_an_error(coordinates) -> None:
    stage = Stage("train", 10, lambda *_: iter(()), {}, layers={"where": ("target", "where")})
    function = function_of(coordinates, stage, {"where": Coordinates2d((32, 48))})
    with pytest.raises(DataError, match=r"Layer 'where' of 'sample.' is 48x32 but its image is resized to 96x64"):
        function(0)


def test_an_uncut_layer_comes_as_it_was_written(coordinates) -> None:
    layers = {"where": ("target", "where"), "map": ("target", "map")}
    stage = Stage("train", 10, lambda *_: iter(()), {}, layers=layers, uncut=("map",))
    function = function_of(coordinates, stage, {"where": Coordinates2d(), "map": Coordinates2d((4, 6))})
    expected = Coordinates2d((4, 6)).read("sample0").numpy()
    for iteration in range(4):
        target = function(iteration).target
        assert target is not None
        assert target.layers["where"].shape[-2:] == target.image.shape[-2:]
        for value in target.layers["map"].numpy():
            np.testing.assert_array_equal(value, expected)


def test_a_whole_sample(coordinates) -> None:
    data = coordinates()
    sample = whole_sample(Resized(data, Size(64, 96)), "sample2")
    np.testing.assert_array_equal(sample.image[0].permute(1, 2, 0).numpy(), data.read_image("sample2"))
    assert sample.box.tolist() == [[0, 0, 64, 96]]
    assert sample.label is None
