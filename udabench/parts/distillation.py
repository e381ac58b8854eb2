"""Knowledge distillation: how far a student's class probabilities are from a teacher's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from udabench.world import per_rank

Divisor = Literal["pixels", "elements"]
Form = Literal["corrected", "release"]


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    form: Form = "corrected",
    divisor: Divisor = "pixels",
) -> Tensor:
    """KL(teacher || student) of two maps of logits, meaned; the teacher's gets no gradient. Float32 at least.

    Args:
        student, teacher: N C h w.
        valid: N h w bool, pixels that count; None: all.
        form: ``release`` takes the student's probabilities where their logarithm belongs, as ProDA's code does (the
            value is then no divergence, and may be negative).
        divisor: what the sum over all pixels and classes is divided by: the ``pixels`` that count in the whole batch,
            or those times C (``elements``: ProDA's code, a mean over a map that has the classes among its axes).

    Returns:
        Scalar; 0 where no pixel counts.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    claimed = student.softmax(1, dtype) if form == "release" else student.log_softmax(1, dtype)
    wanted = teacher.detach().log_softmax(1, dtype)
    each = F.kl_div(claimed, wanted, reduction="none", log_target=True).sum(1)
    inside = torch.ones_like(each) if valid is None else valid.to(each)
    classes = student.shape[1] if divisor == "elements" else 1
    return (each * inside).sum() / (per_rank(inside.sum()) * classes)
