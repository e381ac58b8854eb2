"""The divergence of a student from a teacher, worked out by hand in float64."""

import math

import pytest
import torch

from udabench.parts import distillation
from udabench.parts.distillation import distillation_loss

# Two pixels of two classes: the teacher says (3/4, 1/4) and (1/2, 1/2), the student (1/2, 1/2) and (1/4, 3/4).
TEACHER, STUDENT = [[0.75, 0.25], [0.5, 0.5]], [[0.5, 0.5], [0.25, 0.75]]
FIRST = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
SECOND = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)


def logits(probabilities, shift=0.0):
    return (torch.tensor(probabilities, dtype=torch.float64).log() + shift).T.reshape(1, 2, 1, 2)


@pytest.fixture
def maps():
    """Student and teacher, each shifted by a constant, as logits may be."""
    return logits(STUDENT, 3.0), logits(TEACHER, -7.0)


def test_by_hand(maps):
    assert distillation_loss(*maps).item() == pytest.approx((FIRST + SECOND) / 2, abs=1e-15)
    by_element = distillation_loss(*maps, divisor="elements")
    assert by_element.item() == pytest.approx((FIRST + SECOND) / 4, abs=1e-15)


def test_another_library_agrees():
    rng = torch.Generator().manual_seed(0)
    student, teacher = (4 * torch.randn(2, 19, 5, 7, dtype=torch.float64, generator=rng) for _ in range(2))
    p, q = (torch.distributions.Categorical(logits=z.permute(0, 2, 3, 1)) for z in (teacher, student))
    expected = torch.distributions.kl_divergence(p, q).mean()
    assert torch.allclose(distillation_loss(student, teacher), expected, atol=1e-13)


def test_the_release_takes_probabilities_for_logarithms(maps):
    """sum t (log t - s) over the 4 elements: the student's probabilities s, not their logarithms."""
    total = sum(
        t * (math.log(t) - s) for ts, ss in zip(TEACHER, STUDENT, strict=True) for t, s in zip(ts, ss, strict=True)
    )
    found = distillation_loss(*maps, form="release", divisor="elements").item()
    assert found == pytest.approx(total / 4, abs=1e-15)
    assert found < 0


def test_never_negative_and_0_where_both_agree():
    rng = torch.Generator().manual_seed(1)
    for scale in (0.1, 1, 30):
        student, teacher = (scale * torch.randn(1, 5, 4, 4, generator=rng) for _ in range(2))
        assert distillation_loss(student, teacher) > 0
        assert distillation_loss(teacher + 2, teacher).item() == pytest.approx(0, abs=1e-5)


def test_pixels_that_do_not_count(maps):
    only_second = torch.tensor([[[False, True]]])
    assert distillation_loss(*maps, only_second).item() == pytest.approx(SECOND, abs=1e-15)
    assert distillation_loss(*maps, only_second, divisor="elements").item() == pytest.approx(SECOND / 2, abs=1e-15)
    assert distillation_loss(*maps, torch.zeros_like(only_second)).item() == 0


def test_the_mean_is_that_of_all_ranks(maps, monkeypatch):
    """Two ranks with 1 and 2 pixels: the average of their values is the mean over the three pixels."""
    monkeypatch.setattr(distillation, "per_rank", lambda count: torch.tensor(3.0) / 2)
    ranks = [distillation_loss(*maps, torch.tensor([[[first, True]]])).item() for first in (False, True)]
    assert sum(ranks) / 2 == pytest.approx((FIRST + 2 * SECOND) / 3, abs=1e-15)


def test_the_gradient_is_the_difference_of_probabilities(maps):
    student, teacher = (z.requires_grad_() for z in maps)
    distillation_loss(student, teacher).backward()
    expected = (torch.tensor(STUDENT, dtype=torch.float64) - torch.tensor(TEACHER, dtype=torch.float64)).T / 2
    assert torch.allclose(student.grad, expected.reshape(1, 2, 1, 2), atol=1e-15)
    assert teacher.grad is None


def test_half_precision_is_widened():
    student, teacher = torch.randn(2, 1, 19, 3, 3).bfloat16()
    assert distillation_loss(student, teacher).dtype == torch.float32
