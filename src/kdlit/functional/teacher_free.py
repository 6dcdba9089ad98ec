"""A virtual teacher: a distribution designed by hand around the ground truth."""

import math

import torch
from torch import Tensor

from kdlit.functional.labels import soft_label_loss
from kdlit.functional.precision import float32_at_least


def virtual_teacher_loss(
    student_logits: Tensor, target: Tensor, correct: float, temperature: float
) -> Tensor:
    r"""Soft labels of a teacher that is always right, and wrong in no particular way.

    .. math:: \mathcal{L} = T^2 \, \mathrm{KL}(u_T \,\|\, \mathrm{softmax}(z/T)), \quad
        u(c) = \begin{cases} a & c = y \\ (1 - a)/(C - 1) & c \ne y \end{cases}

    with :math:`u_T = \mathrm{softmax}(\log u / T)`, the teacher at temperature T. This is the
    paper's formula with the factor T² of :func:`kdlit.functional.soft_label_loss`. The authors'
    code differs from both: it takes the softmax of u/T itself, which is all but uniform, leaves
    the student at temperature 1, and has a multiplier of its own for each network.

    Args:
        student_logits: z, shape (N, C).
        target: y, integer class indices, shape (N,).
        correct: a in (0, 1), the virtual teacher's probability of the true class.
        temperature: T > 0.

    Returns:
        A scalar >= 0, in nats, averaged over the batch.

    Source: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization",
    2020 (arXiv:1909.11723).

    >>> import torch
    >>> round(virtual_teacher_loss(torch.zeros(1, 4), torch.tensor([0]), 0.97, 1.0).item(), 4)
    1.2186
    """
    logits = float32_at_least(student_logits)
    teacher = torch.full_like(logits, math.log((1 - correct) / max(logits.shape[1] - 1, 1)))
    teacher = teacher.scatter(1, target.to(torch.long)[:, None], math.log(correct))
    return soft_label_loss(logits, teacher, temperature)
