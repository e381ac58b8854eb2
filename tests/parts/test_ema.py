"""The teacher's update, by hand."""

import pytest
import torch
from torch import nn

from udabench.parts.ema import Ema, ema_factor


def test_factor_copies_first_and_is_capped():
    assert ema_factor(0, 0.999) == 0
    assert ema_factor(1, 0.999) == 0.5
    assert ema_factor(9, 0.999) == pytest.approx(0.9)
    assert ema_factor(100_000, 0.999) == 0.999


def _pair(**options):
    student = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1), nn.Dropout(0.5))
    teacher = Ema(student, **options)
    with torch.no_grad():
        student[0].weight.fill_(3.0)
        teacher.module[0].weight.fill_(1.0)
        student[1].running_mean.fill_(5.0)
        student[1].num_batches_tracked.fill_(4)
    return student, teacher


def test_parameters_move_and_need_no_gradient():
    student, teacher = _pair(alpha=0.9)
    teacher.update(student, 1000)
    assert teacher.module[0].weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert student[0].weight.item() == 3.0


def test_without_a_ramp_the_first_update_moves_as_all_others():
    student, teacher = _pair(alpha=0.9, ramp=False)
    teacher.update(student, 0)
    assert teacher.module[0].weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)


@pytest.mark.parametrize(("copied", "mean", "count"), [(True, 5.0, 4), (False, 0.0, 0)])
def test_buffers_by_a_switch(copied, mean, count):
    student, teacher = _pair(copy_buffers=copied)
    teacher.update(student, 5)
    assert teacher.module[1].running_mean.item() == mean
    assert teacher.module[1].num_batches_tracked.item() == count


@pytest.mark.parametrize(
    ("norms", "norm_trains", "dropout_trains"),
    [("running", False, False), ("batch", True, False), ("train", True, True)],
)
def test_modes_of_the_teacher(norms, norm_trains, dropout_trains):
    _, teacher = _pair(norms=norms)
    owner = nn.ModuleList([teacher]).train()
    _, norm, dropout = teacher.module
    assert (norm.training, dropout.training) == (norm_trains, dropout_trains)
    assert not teacher.module.training
    owner.eval()
    assert not any(m.training for m in teacher.modules())


class _Frozen(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[0].eval()
        return self


@pytest.mark.parametrize("norms", ["batch", "train"])
def test_norms_that_the_student_keeps_frozen_are_so_in_the_teacher(norms):
    teacher = Ema(_Frozen(nn.BatchNorm1d(1), nn.BatchNorm1d(1)), norms=norms).train()
    assert [norm.training for norm in teacher.module] == [False, True]


def test_first_update_copies_exactly():
    student, teacher = _pair(alpha=0.999)
    teacher.update(student, 0)
    assert torch.equal(teacher.module[0].weight, student[0].weight)
