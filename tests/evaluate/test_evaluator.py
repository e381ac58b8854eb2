"""Scoring a predictor on a split."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from udabench.config import EvaluateConfig
from udabench.dataset import Dataset, Pixels
from udabench.errors import DataError
from udabench.evaluate.evaluator import ahead, evaluate, limited, present_classes
from udabench.labels import CITYSCAPES19, IGNORE, SYNTHIA16, LabelSpace
from udabench.method import Samples
from udabench.size import Size
from udabench.task import Task

CPU = torch.device("cpu")


class Stripes(Dataset):
    """Images whose red channel tells the class, each of another size; a stripe of unknown pixels."""

    label_space: ClassVar[LabelSpace] = CITYSCAPES19
    id_map: ClassVar = {**{i: i for i in range(19)}, IGNORE: IGNORE}
    train_size: ClassVar[Size] = Size(16, 32)
    present: ClassVar = (0, 1, 9, 13)
    wrong_size = False

    def list_names(self) -> list[str]:
        return [f"image_{i}" for i in range(5)]

    def read_image(self, name: str) -> Pixels:
        ids = self._classes(name)
        return np.stack([ids * 10, ids * 0, ids * 0], 2).astype(np.uint8)

    def read_ids(self, name: str) -> npt.NDArray[np.integer]:
        ids = self._classes(name)
        ids[:, :2] = IGNORE
        return ids[:-1] if self.wrong_size else ids

    def _classes(self, name: str) -> npt.NDArray[np.integer]:
        index = int(name[-1])
        ids = np.zeros((32 + 16 * index, 64 + 32 * index), np.uint8)
        ids[:, ids.shape[1] // 2 :] = (1, 9, 13)[index % 3]
        return ids


def stripes() -> Stripes:
    return Stripes(Path(), "val")


def task(space: LabelSpace = CITYSCAPES19) -> Task:
    return Task("a", "b", space, space.averages)


def reader(classes: int = 19) -> nn.Module:
    """Reads the class from the red channel: right wherever the resized image is."""

    class Reader(nn.Module):
        def forward(self, samples: Samples) -> Tensor:
            ids = samples.image[:, 0] * 255 / 10
            return -(ids[:, None] - torch.arange(classes).view(1, -1, 1, 1)).abs()

    return Reader()


def config(**values: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate(values)


def test_perfect_predictor_at_native_sizes() -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        reader(), stripes(), task(), config(size="64x32"), Size(1, 1), CPU, progress=lambda *p: seen.append(p)
    )
    assert found.names == tuple(f"image_{i}" for i in range(5))
    assert found.matrices.shape == (5, 19, 19)
    assert found.matrices.dtype == np.int64
    # Every known pixel of every label at its own size.
    expected = [(32 + 16 * i) * (64 + 32 * i - 2) for i in range(5)]
    assert found.matrices.sum((1, 2)).tolist() == expected
    # A blurred border may be wrong; the first image is not resized at all.
    assert np.trace(found.matrices[0]) == expected[0]
    assert found.iou[0] > 0.95
    assert np.isnan(found.iou[18])
    assert list(found.means) == list(CITYSCAPES19.averages)
    assert found.headline == found.means["mIoU19"]
    assert seen == [(i, 5) for i in range(1, 6)]
    assert found.entropy is None


@pytest.mark.parametrize(
    "values", [{"batch": 2}, {"batch": 5}, {"mode": "slide", "window": "32x32", "stride": "16x16"}]
)
def test_batch_and_windows_change_nothing_for_a_local_predictor(values: dict[str, object]) -> None:
    plain = evaluate(reader(), stripes(), task(), config(), Size(32, 64), CPU)
    other = evaluate(reader(), stripes(), task(), config(**values), Size(32, 64), CPU)
    np.testing.assert_array_equal(plain.matrices, other.matrices)


def test_labels_are_mapped_to_the_tasks_classes() -> None:
    found = evaluate(reader(16), stripes(), task(SYNTHIA16), config(), Size(32, 64), CPU)
    # Terrain (9) is nobody's class here: half of images 1 and 4 is ignored.
    assert found.matrices.shape == (5, 16, 16)
    assert found.matrices[1].sum() == 48 * (48 - 2)
    assert found.protocol.rule == "B"


def test_limit_is_a_protocol_of_its_own() -> None:
    whole = evaluate(reader(), stripes(), task(), config(), Size(32, 64), CPU)
    part = evaluate(reader(), stripes(), task(), config(limit=2), Size(32, 64), CPU)
    np.testing.assert_array_equal(part.matrices, whole.matrices[:2])
    assert part.protocol.images == 2
    assert part.protocol.hash != whole.protocol.hash
    data = stripes()
    assert limited(data, 5) is data
    assert len(limited(data, 2)) == 2
    assert len(data) == 5


def test_restricted_to_the_sources_classes() -> None:
    present = present_classes(Stripes, CITYSCAPES19)
    assert present == (0, 1, 9, 13)
    assert present_classes(Stripes, SYNTHIA16) == (0, 1, 12)

    def bus(samples: Samples) -> Tensor:
        return torch.arange(19.0).view(1, -1, 1, 1).expand(1, -1, 4, 8)

    found = evaluate(bus, stripes(), task(), config(restrict_to_source=True), Size(8, 16), CPU, present=present)
    assert np.flatnonzero(found.matrices.sum((0, 1))).tolist() == [13]
    with pytest.raises(ValueError, match="restrict_to_source needs"):
        evaluate(bus, stripes(), task(), config(restrict_to_source=True), Size(8, 16), CPU)


def test_entropy_probe() -> None:
    def sure_on_the_left(samples: Samples) -> Tensor:
        logits = torch.zeros(1, 19, 32, 64)
        logits[:, 0, :, :32] = 100
        return logits

    found = evaluate(sure_on_the_left, stripes(), task(), config(limit=1), Size(32, 64), CPU, probe="entropy")
    assert found.entropy is not None
    assert found.entropy.correct == pytest.approx(0, abs=1e-6)
    assert found.entropy.incorrect == pytest.approx(np.log(19), rel=1e-6)


def test_mode_and_random_numbers_are_left_alone() -> None:
    network = reader()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for mode in (True, False):
        network.train(mode)
        evaluate(network, stripes(), task(), config(), Size(32, 64), CPU)
        assert network.training is mode
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.is_grad_enabled()


def test_no_gradient_is_recorded() -> None:
    def watched(samples: Samples) -> Tensor:
        assert torch.is_inference_mode_enabled()
        return reader()(samples)

    evaluate(watched, stripes(), task(), config(limit=1), Size(32, 64), CPU)


def test_precision_is_the_networks_alone() -> None:
    layer = nn.Conv2d(3, 19, 1)
    types = []

    def network(samples: Samples) -> Tensor:
        types.append(layer(samples.image).dtype)
        return reader()(samples)

    evaluate(network, stripes(), task(), config(limit=1), Size(32, 64), CPU, precision="bfloat16")
    evaluate(network, stripes(), task(), config(limit=1), Size(32, 64), CPU)
    assert types == [torch.bfloat16, torch.float32]


def test_label_of_another_size_is_named() -> None:
    data = stripes()
    data.wrong_size = True
    with pytest.raises(DataError, match="do not belong together"):
        evaluate(reader(), data, task(), config(), Size(32, 64), CPU)


def test_wrong_number_of_classes() -> None:
    with pytest.raises(ValueError, match="gave 7 classes; the task has 19"):
        evaluate(reader(7), stripes(), task(), config(), Size(32, 64), CPU)


def test_ahead_keeps_order_and_bounds_what_waits() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        done.append(item)
        return item

    found = []
    for result in ahead(work, range(20), threads=2):
        assert len(done) <= result + 6
        found.append(result)
    assert found == list(range(20))


def test_ahead_ends_its_threads_when_left() -> None:
    before = threading.active_count()
    results = ahead(lambda item: item, range(100))
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before


def test_ahead_raises_the_workers_error() -> None:
    def broken(item: int) -> int:
        raise DataError(f"file {item}")

    with pytest.raises(DataError, match="file 0"):
        list(ahead(broken, range(3)))
