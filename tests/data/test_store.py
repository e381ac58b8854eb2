from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from udabench.config import DataConfig
from udabench.data.build import Builder
from udabench.data.resize import Resized
from udabench.data.statistics import class_counts
from udabench.data.store import (
    JOURNAL,
    MANIFEST,
    PARTIAL,
    PreparedDataset,
    estimate_bytes,
    find_prepared,
    prefer_prepared,
    prepare,
    store_path,
)
from udabench.dataset import Unlabelled
from udabench.errors import DataError, UsageError
from udabench.labels import CITYSCAPES19
from udabench.method import Stage
from udabench.size import Size

SIZE = Size(height=30, width=50)
STAGE = Stage("train", 10, lambda *_: iter(()), {})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_prepared_sample_is_the_raw_one_resized_bit_by_bit(make_gta5, store) -> None:
    data = make_gta5()
    prepared = prepare(data, SIZE, store)
    raw = Resized(data, SIZE)
    for name in data.names:
        image, label = raw.pair(name)
        np.testing.assert_array_equal(prepared.read_image(name), image)
        np.testing.assert_array_equal(prepared.read_label(name), label)
    assert prepared.names == data.names
    assert prepared.digest() == data.digest()
    assert not prepared.lossy


def test_its_counts_are_those_at_native_resolution(make_gta5, store, tmp_path) -> None:
    data = make_gta5()
    expected = [np.bincount(data.read_label(name).ravel(), minlength=256)[:19] for name in data.names]
    np.testing.assert_array_equal(prepare(data, SIZE, store).counts, expected)
    np.testing.assert_array_equal(class_counts(data, tmp_path / "other"), expected)


@pytest.mark.parametrize("sampler", ["uniform", "rcs", "paired"])
def test_training_is_the_same_with_and_without_a_store(make_gta5, store, sampler) -> None:
    source, target = make_gta5(), make_gta5("target", seed=1)
    config = DataConfig(
        crop="32x24", source_size="50x30", target_size="50x30", sampler=sampler, rcs_min_pixels=50, store=store
    )
    builder = Builder(0, config, CITYSCAPES19, source, target)
    raw = [builder.stage(STAGE)(i) for i in range(4)]
    prepare(source, SIZE, store)
    prepare(target, SIZE, store)
    again = Builder(0, config, CITYSCAPES19, source, target)
    assert isinstance(again.stored("source"), PreparedDataset)
    assert isinstance(again.stored("target"), PreparedDataset)
    for i, before in enumerate(raw):
        after = again.stage(STAGE)(i)
        assert torch.equal(before.source.image, after.source.image)
        assert torch.equal(before.source.label, after.source.label)
        assert torch.equal(before.target.image, after.target.image)
        assert after.target.label is None


def test_a_store_is_used_only_for_its_size_and_list(make_gta5, store) -> None:
    data = make_gta5()
    prepare(data, SIZE, store)
    assert find_prepared(data, SIZE, store) is not None
    assert find_prepared(data, Size(31, 50), store) is None
    (data.root / "images/00001.png").unlink()
    shorter = type(data)(data.root, "train")
    assert find_prepared(shorter, SIZE, store) is None
    assert prefer_prepared(shorter, SIZE, store) is shorter


def test_preparing_again_does_nothing(make_gta5, store) -> None:
    data = make_gta5()
    prepare(data, SIZE, store)
    told: list[int] = []
    prepare(data, SIZE, store, progress=lambda done, total: told.append(done))
    assert told == []


def test_a_jpeg_store_is_near_for_images_and_exact_for_labels(make_gta5, store, coordinates) -> None:
    data = coordinates()
    prepared = prepare(data, coordinates.train_size, store, "jpeg")
    assert prepared.lossy
    for name in data.names:
        assert np.abs(prepared.read_image(name).astype(int) - data.read_image(name)).max() <= 12
        np.testing.assert_array_equal(prepared.read_label(name), data.read_label(name))
    assert isinstance(prefer_prepared(data, coordinates.train_size, store), PreparedDataset)


def test_a_jpeg_store_is_used_only_where_its_folder_is_named(coordinates, store, monkeypatch) -> None:
    monkeypatch.setenv("UDABENCH_STORE", str(store))
    data = coordinates()
    prepare(data, coordinates.train_size, None, "jpeg")
    assert find_prepared(data, coordinates.train_size) is None
    prepare(data, coordinates.train_size)
    assert not find_prepared(data, coordinates.train_size).lossy


def test_a_target_without_labels_is_prepared_for_its_images(make_gta5, store) -> None:
    data = make_gta5()
    for path in (data.root / "labels").iterdir():
        path.unlink()
    prepared = prepare(data, SIZE, store)
    np.testing.assert_array_equal(prepared.read_image("00001"), Resized(data, SIZE).image("00001"))
    assert not prepared.has_label("00001")
    with pytest.raises(DataError, match=r"labels/00001.png is missing"):
        prepared.read_label("00001")


def test_a_pickled_store_carries_no_pixels(make_gta5, store) -> None:
    prepared = prepare(make_gta5(), SIZE, store)
    before = len(pickle.dumps(prepared))
    prepared.read_image("00001"), prepared.read_label("00001")
    assert len(pickle.dumps(prepared)) <= before + 100
    again = pickle.loads(pickle.dumps(Unlabelled(prepared)))
    np.testing.assert_array_equal(again.read_image("00002"), prepared.read_image("00002"))


def test_the_limit_asks(make_gta5, store) -> None:
    data = make_gta5()
    need = estimate_bytes(data, SIZE)
    assert need == 6 * 30 * 50 * 4
    with pytest.raises(UsageError, match="above the limit"):
        prepare(data, SIZE, store, limit=need - 1)
    asked: list[int] = []
    with pytest.raises(UsageError, match="above the limit"):
        prepare(data, SIZE, store, limit=need - 1, confirm=lambda size: asked.append(size) is not None)
    assert asked == [need]
    assert not store.exists()
    prepare(data, SIZE, store, limit=need - 1, confirm=lambda size: True)


def test_no_space_is_said_before_anything_is_decoded(make_gta5, store, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("udabench.data.store.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"only 0.0 GB free"):
        prepare(make_gta5(), SIZE, store)


def test_a_full_disk_is_a_users_error(make_gta5, store, monkeypatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        prepare(make_gta5(), SIZE, store)


def test_a_broken_file_is_named_and_the_rest_is_kept(make_gta5, store) -> None:
    data = make_gta5()
    path = data.root / "images/00004.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"images/00004.png cannot be decoded"):
        prepare(data, SIZE, store, threads=1)
    assert find_prepared(data, SIZE, store) is None
    path.write_bytes(whole)
    reads = count_reads(data)
    prepared = prepare(data, SIZE, store, threads=1)
    assert "00004" in reads
    assert not {"00001", "00002", "00003"} & set(reads)
    np.testing.assert_array_equal(prepared.read_image("00001"), Resized(data, SIZE).image("00001"))


def count_reads(data) -> list[str]:
    reads: list[str] = []
    original = data.read_image

    def read(name: str) -> np.ndarray:
        reads.append(name)
        return original(name)

    data.read_image = read
    return reads


def test_labels_without_any_class_are_an_error_at_preparation(make_gta5, store, monkeypatch) -> None:
    data = make_gta5()
    monkeypatch.setattr(type(data), "id_map", dict.fromkeys(range(35), 255))
    with pytest.raises(DataError, match="None of the 6 labels"):
        prepare(data, SIZE, store)
    with pytest.raises(DataError, match="None of the 6 labels"):
        class_counts(data, store)


SLOW_CHILD = """
import sys, time
from pathlib import Path
from udabench_gta5.dataset import Gta5
from udabench.data.store import prepare
from udabench.size import Size
class Slow(Gta5):
    def read_image(self, name):
        time.sleep(0.15)
        return super().read_image(name)
Slow.__name__ = Slow.__qualname__ = "Gta5"
Slow.__module__ = "udabench_gta5.dataset"
prepare(Slow(Path(sys.argv[1]), "train"), Size(30, 50), Path(sys.argv[2]), threads=1,
        progress=lambda done, total: print(done, flush=True))
"""


def test_a_killed_preparation_goes_on_where_it_was(make_gta5, store) -> None:
    data = make_gta5(count=8)
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW_CHILD, str(data.root), str(store)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert [child.stdout.readline().strip() for _ in range(3)] == ["1", "2", "3"]
    with pytest.raises(UsageError, match="Another process"):
        prepare(data, SIZE, store)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert find_prepared(data, SIZE, store) is None
    reads = count_reads(data)
    prepared = prepare(data, SIZE, store)
    assert not {"00001", "00002", "00003"} & set(reads)
    for name in data.names:
        np.testing.assert_array_equal(prepared.read_image(name), Resized(data, SIZE).image(name))
    assert not list(store.glob(f"*{PARTIAL}"))


@pytest.mark.slow
def test_a_preparation_killed_at_random_moments_ends_whole(make_gta5, store) -> None:
    data = make_gta5(count=12)
    rng = np.random.default_rng(0)
    command = [sys.executable, "-c", SLOW_CHILD, str(data.root), str(store)]
    for _ in range(10):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    prepared = prepare(data, SIZE, store)
    for name in data.names:
        np.testing.assert_array_equal(prepared.read_image(name), Resized(data, SIZE).image(name))
        np.testing.assert_array_equal(prepared.read_label(name), Resized(data, SIZE).pair(name)[1])


def test_what_a_crash_tore_is_written_again(make_gta5, store) -> None:
    """The journal says done, but the pixels never reached the disk: its checksum tells."""
    data = make_gta5()
    broken = data.root / "images/00006.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        prepare(data, SIZE, store, threads=1)
    partial = store_path(data, SIZE, store).with_name(store_path(data, SIZE, store).name + PARTIAL)
    with (partial / "images.raw").open("r+b") as file:
        file.seek(2 * 30 * 50 * 3)
        file.write(bytes(100))
    broken.write_bytes(whole)
    reads = count_reads(data)
    prepared = prepare(data, SIZE, store, threads=1)
    assert sorted(reads) == ["00003", "00006"]
    np.testing.assert_array_equal(prepared.read_image("00003"), Resized(data, SIZE).image("00003"))


def flip_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("file", "read"), [("images.raw", "read_image"), ("labels.raw", "read_label")], ids=["image", "label"]
)
def test_damaged_pixels_are_found_when_read(make_gta5, store, file, read) -> None:
    data = make_gta5()
    path = prepare(data, SIZE, store).path
    per_sample = 30 * 50 * (3 if file == "images.raw" else 1)
    flip_byte(path / file, per_sample + 7)
    prepared = find_prepared(data, SIZE, store)
    getattr(prepared, read)("00001")
    with pytest.raises(DataError, match=r"of '00002' has another checksum. Delete that folder"):
        getattr(prepared, read)("00002")


@pytest.mark.parametrize("damage", ["short", "missing", "journal", "manifest", "no manifest"])
def test_a_damaged_store_is_refused(make_gta5, store, damage) -> None:
    data = make_gta5()
    path = prepare(data, SIZE, store).path
    if damage == "short":
        os.truncate(path / "images.raw", 1000)
    elif damage == "missing":
        (path / "labels.raw").unlink()
    elif damage == "journal":
        flip_byte(path / JOURNAL, 100)
    elif damage == "manifest":
        manifest = json.loads((path / MANIFEST).read_text())
        (path / MANIFEST).write_text(json.dumps({**manifest, "size": "51x30"}))
    else:
        (path / MANIFEST).unlink()
    with pytest.raises(DataError, match="cannot be used"):
        find_prepared(data, SIZE, store)
    with pytest.raises(DataError, match="cannot be used"):
        prepare(data, SIZE, store)


def test_statistics_are_counted_once(make_gta5, store) -> None:
    data = make_gta5()
    told: list[tuple[int, int]] = []
    first = class_counts(data, store, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 6) for i in range(1, 7)]
    again = class_counts(type(data)(data.root, "train"), store, progress=lambda *_: told.append((0, 0)))
    np.testing.assert_array_equal(first, again)
    assert len(told) == 6
    cache = next((store / "statistics").glob("*.npy"))
    cache.write_bytes(cache.read_bytes()[:50])
    np.testing.assert_array_equal(class_counts(data, store), first)


def test_identity_tells_options_and_roots_apart(coordinates, make_gta5) -> None:
    assert coordinates(count=3).identity() != coordinates(count=4).identity()
    assert coordinates(count=3).identity() == coordinates(count=3).identity()
    assert make_gta5("a").identity() != make_gta5("b").identity()
    data = coordinates()
    before = data.identity()
    data.names, len(data)
    assert data.identity() == before
