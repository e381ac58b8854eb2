"""Confusion matrices and IoU, against other libraries and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as scripts
from torch import Tensor
from torchmetrics import JaccardIndex

from udabench.evaluate.confusion import confusion_matrix
from udabench.evaluate.metrics import Matrix, iou, mean_iou, mean_ious, pixel_accuracy
from udabench.labels import CITYSCAPES19, IGNORE, SIXTEEN, SYNTHIA16, THIRTEEN

SERVER_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def maps(seed: int, classes: int = 19, images: int = 3, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """Truth (some of it 255) and prediction, which agree on about half of the pixels."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, (images, 24, 40), generator=rng)
    prediction = torch.where(
        torch.rand(truth.shape, generator=rng) < 0.5, truth, torch.randint(0, classes, truth.shape, generator=rng)
    )
    truth[torch.rand(truth.shape, generator=rng) < ignored] = IGNORE
    return truth.to(torch.uint8), prediction.to(torch.uint8)


def matrix_of(truth: Tensor, prediction: Tensor, classes: int = 19) -> Matrix:
    return sum(confusion_matrix(t, p, classes) for t, p in zip(truth, prediction, strict=True)).numpy()


def test_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1], [1, 2, 255]], dtype=torch.uint8)
    prediction = torch.tensor([[0, 1, 1], [1, 0, 2]], dtype=torch.uint8)
    matrix = confusion_matrix(truth, prediction, 4)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    values = iou(matrix.numpy())
    # 0: 1 / (2 truth + 2 predicted - 1); 1: 2 / (2 + 3 - 2); 2: 0 / (1 + 0 - 0); 3: nowhere
    np.testing.assert_allclose(values, [1 / 3, 2 / 3, 0, math.nan])
    assert mean_iou(values, range(4)) == pytest.approx(1 / 3)
    assert pixel_accuracy(matrix.numpy()) == pytest.approx(3 / 5)


@pytest.mark.parametrize("seed", range(3))
def test_against_torchmetrics(seed: int) -> None:
    truth, prediction = maps(seed)
    metric = JaccardIndex("multiclass", num_classes=19, ignore_index=IGNORE, average="none")
    for t, p in zip(truth, prediction, strict=True):
        metric.update(p[None].long(), t[None].long())
    np.testing.assert_allclose(iou(matrix_of(truth, prediction)), metric.compute().numpy(), rtol=1e-6)


@pytest.mark.parametrize("missing", [(), (14, 16), (0,)])
def test_against_cityscapesscripts(missing: tuple[int, ...]) -> None:
    truth, prediction = maps(7)
    for index in missing:
        truth[truth == index] = IGNORE
        if index == 16:  # neither in the truth nor predicted: a class without a union
            prediction[prediction == index] = 0
    ids = np.zeros(256, np.uint8)  # 255 -> 0, "unlabeled", which is ignored
    ids[:19] = SERVER_IDS
    scripts.args.evalLabels = list(SERVER_IDS)
    server = np.zeros((34, 34), np.ulonglong)
    for t, p in zip(truth.numpy(), prediction.numpy(), strict=True):
        pairs = np.stack([ids[t].ravel(), ids[p].ravel()])
        np.add.at(server, tuple(pairs), 1)
    # Rows of ignored labels are left out by the scripts themselves.
    scripts.args.evalLabels = [*range(34), -1]
    expected = [scripts.getIouScoreForLabel(i, server, scripts.args) for i in SERVER_IDS]
    np.testing.assert_allclose(iou(matrix_of(truth, prediction)), expected)


def test_absent_in_truth_but_predicted_counts_as_zero() -> None:
    truth, prediction = torch.zeros(1, 4, dtype=torch.uint8), torch.tensor([[0, 0, 0, 1]], dtype=torch.uint8)
    values = iou(confusion_matrix(truth, prediction, 3).numpy())
    np.testing.assert_allclose(values, [0.75, 0, math.nan])
    assert mean_iou(values, range(3)) == pytest.approx(0.375)


def test_ignored_pixels_never_change_a_score() -> None:
    truth, prediction = maps(1)
    changed = torch.where(truth == IGNORE, (prediction + 5) % 19, prediction)
    assert (changed != prediction).any()
    np.testing.assert_array_equal(matrix_of(truth, prediction), matrix_of(truth, changed))


def test_everything_ignored() -> None:
    truth = torch.full((4, 4), IGNORE, dtype=torch.uint8)
    matrix = confusion_matrix(truth, torch.zeros_like(truth), 5).numpy()
    assert matrix.sum() == 0
    assert math.isnan(mean_iou(iou(matrix), range(5)))
    assert math.isnan(pixel_accuracy(matrix))


def test_whole_set_is_not_the_mean_over_images() -> None:
    truth = torch.tensor([[[0, 0, 0, 1]], [[0, 1, 1, 1]]], dtype=torch.uint8)
    prediction = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]]], dtype=torch.uint8)
    whole = iou(matrix_of(truth, prediction, 2))
    np.testing.assert_allclose(whole, [3 / 5, 3 / 5])
    each = [iou(confusion_matrix(t, p, 2).numpy()) for t, p in zip(truth, prediction, strict=True)]
    np.testing.assert_allclose(np.nanmean(each, 0), [3 / 8, 3 / 8])


def test_large_counts_stay_exact() -> None:
    matrix = np.array([[2**40, 1], [0, 2**40]], np.int64)
    assert iou(matrix).tolist() == [2**40 / (2**40 + 1)] * 2


def test_sizes_must_be_equal() -> None:
    with pytest.raises(ValueError, match=r"truth is \(2, 3\) but prediction is \(3, 2\)"):
        confusion_matrix(torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(3, 2, dtype=torch.uint8), 2)


@pytest.mark.parametrize(("truth", "prediction"), [(5, 0), (0, 5), (254, 0)])
def test_ids_must_be_classes(truth: int, prediction: int) -> None:
    with pytest.raises(ValueError, match=rf"\[\[{truth}, {prediction}\]\] of 5"):
        confusion_matrix(torch.tensor([[truth]], dtype=torch.uint8), torch.tensor([[prediction]], dtype=torch.uint8), 5)


def test_sub_averages_and_the_shortcut() -> None:
    """x 19/16 equals the average over 16 only where the other three score exactly 0."""
    values = np.linspace(0.1, 0.9, 19)
    absent = [9, 14, 16]
    values[absent] = 0
    means = mean_ious(values, CITYSCAPES19.averages)
    assert means["mIoU16"] == pytest.approx(values[list(SIXTEEN)].mean())
    assert means["mIoU13*"] == pytest.approx(values[list(THIRTEEN)].mean())
    assert means["mIoU19"] * 19 / 16 == pytest.approx(means["mIoU16"])
    for other in (0.3, math.nan):
        values[9] = other
        means = mean_ious(values, CITYSCAPES19.averages)
        assert means["mIoU19"] * 19 / 16 != pytest.approx(means["mIoU16"])
        assert means["mIoU16"] == pytest.approx(values[list(SIXTEEN)].mean())


def test_protocol_a_is_at_most_protocol_b() -> None:
    """A: 19 rows, terrain taken for vegetation is vegetation's false positive. B: those pixels are ignored."""
    truth = torch.tensor([[8, 8, 8, 9, 9, 13]], dtype=torch.uint8)
    prediction = torch.tensor([[8, 8, 8, 8, 8, 13]], dtype=torch.uint8)
    a = mean_iou(iou(confusion_matrix(truth, prediction, 19).numpy()), SIXTEEN)
    lookup = torch.from_numpy(SYNTHIA16.lookup(CITYSCAPES19))
    b = mean_iou(
        iou(confusion_matrix(lookup[truth.long()], lookup[prediction.long()], 16).numpy()), range(len(SYNTHIA16))
    )
    # vegetation 3 / 5, car 1; without the terrain pixels 1 and 1
    assert a == pytest.approx(0.8)
    assert b == 1.0
