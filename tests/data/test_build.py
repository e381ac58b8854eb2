from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from udabench.config import DataConfig
from udabench.data.build import Builder
from udabench.errors import DataError, UsageError
from udabench.labels import CITYSCAPES19, SYNTHIA16
from udabench.method import Stage
from udabench.size import Size

STAGE = Stage("train", 10, lambda *_: iter(()), {})
SMALL = {"crop": "32x24", "source_size": "100x60", "target_size": "96x58"}


def config(tmp_path, **values) -> DataConfig:
    return DataConfig(**{**SMALL, "store": tmp_path / "store", **values})


@pytest.mark.parametrize("sampler", ["uniform", "rcs", "paired", "weighted"])
def test_no_label_of_the_target_is_needed(make_gta5, tmp_path, sampler) -> None:
    source = make_gta5("gta5")
    values = config(tmp_path, sampler=sampler, rcs_min_pixels=50)
    before = Builder(0, values, CITYSCAPES19, source, make_gta5("target", seed=1)).stage(STAGE)
    kept = [before(i) for i in range(4)]
    target = make_gta5("target", seed=1)
    shutil.rmtree(target.root / "labels")
    after = Builder(0, values, CITYSCAPES19, source, target).stage(STAGE)
    for i, batch in enumerate(kept):
        again = after(i)
        assert batch.target.label is None
        assert again.target.label is None
        assert torch.equal(batch.target.image, again.target.image)
        assert torch.equal(batch.source.label, again.source.label)


def test_nothing_in_the_batch_function_reads_a_target_label(make_gta5, tmp_path, monkeypatch) -> None:
    source, target = make_gta5("gta5"), make_gta5("target", seed=1)
    opened: list[str] = []

    def spy(self, name: str) -> np.ndarray:
        opened.append(str(self.root))
        return original(self, name)

    original = type(target).read_ids
    monkeypatch.setattr(type(target), "read_ids", spy)
    function = Builder(0, config(tmp_path, sampler="rcs", rcs_min_pixels=1), CITYSCAPES19, source, target).stage(STAGE)
    for i in range(4):
        function(i)
    assert opened
    assert str(target.root) not in opened


def test_permission_gives_the_targets_labels(make_gta5, tmp_path) -> None:
    builder = Builder(0, config(tmp_path), CITYSCAPES19, make_gta5(), make_gta5("target"), target_labels=True)
    batch = builder.stage(STAGE)(0)
    assert batch.target.label.shape == (2, 24, 32)


def test_labels_are_mapped_to_the_tasks_classes(make_gta5, tmp_path) -> None:
    whole = Builder(0, config(tmp_path), CITYSCAPES19, make_gta5(), make_gta5("target")).stage(STAGE)
    sixteen = Builder(0, config(tmp_path), SYNTHIA16, make_gta5(), make_gta5("target")).stage(STAGE)
    lookup = torch.from_numpy(SYNTHIA16.lookup(CITYSCAPES19))
    for i in range(3):
        assert torch.equal(sixteen(i).source.label, lookup[whole(i).source.label.long()])


def test_without_permission_images_have_no_way_to_labels(make_gta5, tmp_path) -> None:
    images = Builder(0, config(tmp_path), CITYSCAPES19, make_gta5(), make_gta5("target")).images("target")
    assert images.size == Size(58, 96)
    assert not hasattr(images.data, "read_label")
    assert not hasattr(images.data, "read_ids")


def test_a_crop_that_does_not_fit(make_gta5, tmp_path) -> None:
    builder = Builder(0, config(tmp_path, crop="97x24", target_size="96x58"), CITYSCAPES19, make_gta5(), make_gta5("t"))
    with pytest.raises(UsageError, match=r"data.crop 97x24 does not fit data.target_size 96x58"):
        builder.stage(STAGE)
    large = Stage("large", 1, lambda *_: iter(()), {}, context=Size(60, 101))
    with pytest.raises(
        UsageError, match=r"the stage's context 101x60 does not fit data.source_size 100x60.*whole=false"
    ):
        Builder(0, config(tmp_path), CITYSCAPES19, make_gta5(), make_gta5("t")).stage(large)


def test_pairs_need_equal_batches(make_gta5, tmp_path) -> None:
    values = config(tmp_path, sampler="paired", source_batch=1)
    with pytest.raises(UsageError, match=r"data.source_batch is 1 and data.target_batch 2"):
        Builder(0, values, CITYSCAPES19, make_gta5(), make_gta5("t")).stage(STAGE)


def names_of(function, domain: str, batches: int) -> list[str]:
    return [name for i in range(batches) for name in getattr(function(i), domain).names]


def test_a_stage_draws_from_its_own_share_of_the_source(make_gta5, tmp_path) -> None:
    source, target = make_gta5(count=11), make_gta5("t")
    builder = Builder(0, config(tmp_path), CITYSCAPES19, source, target)
    stages = [Stage(name, 10, lambda *_: iter(()), {}, source_share=0.28) for name in ("a", "b", "c")]
    parts = []
    for stage in stages:
        function = builder.stage(stage)
        # 0.28 of 11 images are 3, rounded down.
        names = names_of(function, "source", 6)
        assert {names.count(name) for name in set(names)} == {4}
        parts.append(frozenset(names))
        assert set(names_of(function, "target", 3)) == set(target.names)
    assert {len(part) for part in parts} == {3}
    assert len(set(parts)) > 1
    tiny = Stage("tiny", 1, lambda *_: iter(()), {}, source_share=0.001)
    assert len(set(names_of(builder.stage(tiny), "source", 3))) == 1


@pytest.mark.parametrize("sampler", ["rcs", "weighted", "paired"])
def test_a_share_needs_the_uniform_sampler(make_gta5, tmp_path, sampler) -> None:
    builder = Builder(0, config(tmp_path, sampler=sampler), CITYSCAPES19, make_gta5(), make_gta5("t"))
    with pytest.raises(UsageError, match=rf"'a' trains on 0.03 of the source's images, but data.sampler = {sampler}"):
        builder.stage(Stage("a", 10, lambda *_: iter(()), {}, source_share=0.03))


def test_weighted_sampling_goes_by_what_images_show(make_gta5, tmp_path) -> None:
    """A class that one image of twelve alone shows brings that image into a seventh of the draws and more."""
    source = make_gta5(count=12)
    for i in range(1, 13):
        label = np.full((60 if i % 2 else 58, 100 if i % 2 else 96), 7, np.uint8)
        if i == 5:
            label[:20] = 33
        picture = Image.fromarray(label, "P")
        picture.putpalette(list(range(256)) * 3)
        picture.save(source.root / f"labels/{i:05d}.png")
    function = Builder(0, config(tmp_path, sampler="weighted"), CITYSCAPES19, source, make_gta5("t")).stage(STAGE)
    names = names_of(function, "source", 300)
    # Road is in twelve images and bicycle in one: (1 + 1/12) / 2.
    assert names.count("00005") / 600 == pytest.approx(13 / 24, abs=0.06)


def test_missing_source_labels_are_found_before_the_training(make_gta5, tmp_path) -> None:
    source = make_gta5()
    (source.root / "labels/00003.png").unlink()
    with pytest.raises(DataError, match=r"labels/00003.png is missing: 1 of 6 images"):
        Builder(0, config(tmp_path), CITYSCAPES19, source, make_gta5("t")).stage(STAGE)


def test_a_stage_of_one_domain_never_asks_for_the_other(make_gta5, tmp_path) -> None:
    alone = Stage("alone", 1, lambda *_: iter(()), {}, domains=("source",))
    for sampler in ("uniform", "paired", "rcs", "weighted"):
        values = config(tmp_path, sampler=sampler, rcs_min_pixels=1)
        assert Builder(0, values, CITYSCAPES19, make_gta5(), None).stage(alone)(0).target is None
    with pytest.raises(UsageError, match="no target data"):
        Builder(0, config(tmp_path), CITYSCAPES19, make_gta5(), None).stage(STAGE)


def test_the_usual_size_where_none_is_configured(coordinates, tmp_path) -> None:
    values = DataConfig(crop="32x24", store=tmp_path)
    builder = Builder(0, values, CITYSCAPES19, coordinates(), coordinates())
    assert builder.images("source").size == coordinates.train_size
