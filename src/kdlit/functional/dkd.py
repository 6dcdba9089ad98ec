"""Decoupled knowledge distillation: the true class, and the others among themselves."""

import torch
from torch import Tensor

from kdlit.functional.checks import check_same_logits
from kdlit.functional.divergence import kl_divergence
from kdlit.functional.target import column_of, columns_beside
from kdlit.functional.temperature import rescaled, softened


def dkd_losses(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    r"""The two parts into which the divergence of soft labels falls.

    .. math::
        \mathrm{TCKD} = T^2 \, \frac1N \sum_n \mathrm{KL}\bigl((p_y, 1 - p_y) \,\|\,
        (q_y, 1 - q_y)\bigr), \qquad
        \mathrm{NCKD} = T^2 \, \frac1N \sum_n \mathrm{KL}(\hat p \,\|\, \hat q)

    with p = softmax(t/T), q = softmax(z/T), p_y the probability of the true class, and
    :math:`\hat p_c = p_c / (1 - p_y)` the distribution over the other classes. Soft labels are
    TCKD + (1 - p_y) NCKD: a confident teacher leaves little of the second part, which is here
    weighted by itself.

    Computed in log space: the other classes' total is the `logsumexp` of their log-probabilities,
    and their distribution the softmax of their logits. The authors' code takes
    `log(softmax)`, which is infinite for far logits, and lowers the true class by 1000, which is
    not enough for them; where it is finite the values agree.

    Args:
        student_logits: z, shape (N, C), C >= 3.
        teacher_logits: t, shape (N, C); no gradient is needed.
        target: y, integer class indices, shape (N,).
        temperature: T > 0.

    Returns:
        TCKD and NCKD, scalars >= 0, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ, are not (N, C), or there are fewer than three classes.

    Source: Zhao et al., "Decoupled Knowledge Distillation", 2022, section 3 (arXiv:2203.08679).

    >>> import torch
    >>> student, teacher = torch.zeros(1, 3), torch.tensor([[2.0, 1.0, 0.0]])
    >>> losses = dkd_losses(student, teacher, torch.tensor([0]), temperature=1.0)
    >>> [round(loss.item(), 4) for loss in losses]
    [0.2291, 0.1109]
    """
    check_same_logits(student_logits, teacher_logits)
    target_part = kl_divergence(
        _binary(student_logits, target, temperature), _binary(teacher_logits, target, temperature)
    )
    other_part = kl_divergence(
        columns_beside(student_logits, target), columns_beside(teacher_logits, target), temperature
    )
    return rescaled(target_part, temperature), rescaled(other_part, temperature)


def _binary(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities of the true class and of all others together, shape (N, 2).

    As they are normalised, they are logits of themselves.
    """
    log_probabilities = softened(logits, temperature)
    others = torch.logsumexp(columns_beside(log_probabilities, target), dim=1)
    return torch.stack([column_of(log_probabilities, target), others], dim=1)
