"""The fakes are what they say, so that tests which stand on them mean something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import udabench.testing as kit
from udabench.config import OptimConfig
from udabench.data.batches import to_device
from udabench.data.build import Builder
from udabench.data.locate import open_dataset
from udabench.errors import DataError, UsageError
from udabench.labels import IGNORE, SYNTHIA16
from udabench.method import Stage
from udabench.networks.build import build_network
from udabench.size import Size


def test_public_names_exist():
    assert all(getattr(kit, name) is not None for name in kit.__all__)


def test_data_lies_on_disk_in_the_layout_that_is_printed(tmp_path):
    base = kit.write_fake_data(tmp_path)
    files = {str(path.relative_to(base)) for path in base.rglob("*.png")}
    assert len(files) == 2 * 2 * (6 + 2)
    assert "fake-target/labels/train/target_train_000.png" in files


def test_data_is_the_same_each_time_and_differs_between_looks(tmp_path):
    first, second = (kit.write_fake_dataset(tmp_path / name) for name in "ab")
    target = kit.write_fake_dataset(tmp_path / "c", "target")
    name = "images/train/source_train_000.png"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / name).read_bytes() != (target / name.replace("source", "target")).read_bytes()


def test_all_classes_and_unknown_pixels_occur(tmp_path):
    dataset = kit.FakeSource(kit.write_fake_dataset(tmp_path), "train")
    ids = np.unique(np.stack([dataset.read_label(name) for name in dataset.names]))
    assert set(ids.tolist()) == {*range(19), IGNORE}
    assert dataset.read_image(dataset.names[0]).shape == (32, 64, 3)


def test_labels_can_be_deleted(tmp_path):
    dataset = kit.FakeTarget(kit.write_fake_dataset(tmp_path, "target"), "train")
    kit.delete_labels(tmp_path)
    assert not any(dataset.has_label(name) for name in dataset.names)
    with pytest.raises(DataError, match="is missing"):
        dataset.read_label(dataset.names[0])
    assert all(kit.FakeTarget(tmp_path, "val").has_label(name) for name in kit.FakeTarget(tmp_path, "val").names)


def test_registry_holds_the_fakes_beside_the_installed_plugins():
    registry = kit.fake_registry()
    assert registry.datasets.get("fake-source") is kit.FakeSource
    assert registry.networks.get("fake") is kit.FakeNetwork
    assert "source_only" in registry.methods


def test_network_fulfils_its_contract():
    network = build_network(kit.fake_registry(), "fake", 19, "none", {"dropout": 0.5})
    output = network(torch.rand(2, 3, 32, 48))
    assert output.logits.shape == (2, 19, 8, 12)
    assert [tuple(f.shape[1:]) for f in output.features] == [(8, 16, 24), (16, 8, 12)]
    grouped = [p for group in network.parameter_groups().values() for p in group]
    assert {id(p) for p in grouped} == {id(p) for p in network.parameters()}
    assert len(grouped) == len(list(network.parameters()))


def test_network_has_no_weights_to_offer():
    with pytest.raises(UsageError, match=r"network\.weights = none"):
        kit.FakeNetwork(19, "imagenet")


def test_setup_takes_overrides_and_other_classes():
    setup = kit.fake_setup(
        classes=SYNTHIA16, overrides={"iterations": 3, "optim.lr": 0.5, "network.options": {"width": 4}}
    )
    assert setup.iterations == 3
    assert setup.optim == OptimConfig(lr=0.5, warmup=0)
    assert setup.network().feature_channels == (4, 8)
    assert setup.network().classes == 16
    with pytest.raises(UsageError, match="Did you mean 'iterations'"):
        kit.fake_setup(overrides={"iteration": 3})


@pytest.mark.parametrize("context", [None, Size(32, 64)])
def test_a_fake_batch_has_the_form_of_a_real_one(tmp_path, context):
    base = kit.write_fake_data(tmp_path)
    registry, config = kit.fake_registry(), kit.fake_config()
    roots = {name: base / name for name in ("fake-source", "fake-target")}
    source, target = (open_dataset(registry, name, "train", roots) for name in roots)
    builder = Builder(0, config.data, source.label_space, source, target)
    real = to_device(builder.stage(Stage("train", 1, None, {}, context=context))(0), torch.device("cpu"))
    fake = kit.fake_batch(context=context)
    for ours, theirs in zip(fake, real, strict=True):
        assert (ours.image.shape, ours.image.dtype) == (theirs.image.shape, theirs.image.dtype)
        assert 0 <= ours.image.min() < ours.image.max() <= 1
        assert (ours.label is None) == (theirs.label is None)
        assert (ours.box.shape, ours.box.dtype) == (theirs.box.shape, theirs.box.dtype)
        assert (ours.flipped.shape, ours.flipped.dtype) == (theirs.flipped.shape, theirs.flipped.dtype)
        assert len(ours.names) == len(theirs.names)
        assert (ours.context is None) == (context is None)
        if ours.context is not None:
            assert ours.context.image.shape == theirs.context.image.shape
            top, left = int(ours.context.top[0]), int(ours.context.left[0])
            assert torch.equal(ours.context.image[0, :, top : top + 32, left : left + 32], ours.image[0])


def test_a_fake_batch_is_labelled_where_asked():
    batch = kit.fake_batch(classes=5, target_labels=True, images=3, size=Size(16, 24))
    assert batch.target.label.shape == (3, 16, 24)
    assert set(batch.source.label.unique().tolist()) <= {*range(5), IGNORE}
    assert not torch.equal(batch.source.image, batch.target.image)
