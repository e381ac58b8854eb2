"""Thing-class feature distance, by hand."""

import pytest
import torch

from udabench.errors import UsageError
from udabench.labels import CITYSCAPES19, SYNTHIA13, LabelSpace
from udabench.parts.feature_distance import feature_distance, thing_ids, thing_mask


def test_things_of_cityscapes():
    assert thing_ids(CITYSCAPES19) == (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)
    assert [SYNTHIA13.names[i] for i in thing_ids(SYNTHIA13)][-2:] == ["motorcycle", "bicycle"]


def test_a_space_without_things_is_refused():
    with pytest.raises(UsageError, match="feature_distance=0"):
        thing_ids(LabelSpace("two", ("a", "b"), ((0, 0, 0), (1, 1, 1))))


def test_majority_of_one_class_decides():
    label = torch.zeros(1, 2, 8, dtype=torch.int64)
    label[0, :, 0:2] = 13
    label[0, 0, 0] = 255  # three of four: exactly 0.75
    label[0, :, 2:4] = torch.tensor([[13, 13], [14, 14]])  # things, but no majority of one
    label[0, :, 4:6] = 0
    mask = thing_mask(label, thing_ids(CITYSCAPES19), (1, 4))
    assert mask.tolist() == [[[True, False, False, False]]]


def test_distance_is_averaged_over_the_mask():
    student = torch.tensor([[[[3.0, 9.0, 0.0]], [[4.0, 9.0, 0.0]]]], requires_grad=True)
    loss = feature_distance(student, torch.zeros_like(student), torch.tensor([[[True, False, True]]]))
    assert loss.item() == pytest.approx(2.5)
    loss.backward()
    # Equal features (the third cell) must not give NaN.
    assert student.grad[0, :, 0, 0].tolist() == pytest.approx([0.3, 0.4])
    assert student.grad[0, :, 0, 2].tolist() == [0, 0]


def test_empty_mask_costs_nothing():
    student = torch.rand(1, 2, 1, 3, requires_grad=True)
    loss = feature_distance(student, torch.zeros_like(student), torch.zeros(1, 1, 3, dtype=torch.bool))
    assert loss.item() == 0
    loss.backward()
    assert student.grad.abs().sum() == 0
