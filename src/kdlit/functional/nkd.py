"""Normalised knowledge distillation: both distributions over the other classes sum to 1."""

from torch import Tensor

from kdlit.functional.checks import check_same_logits
from kdlit.functional.target import column_of, columns_beside
from kdlit.functional.temperature import rescaled, softened


def nkd_losses(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    r"""The teacher's weight on the true class, and the normalised others.

    .. math::
        \mathcal{L}_\text{target} = -\frac1N \sum_n p_y \log q_y, \qquad
        \mathcal{L}_\text{other} = -T^2 \, \frac1N \sum_n \sum_{c \ne y}
        \hat p_c \log \hat q_c

    with p and q the teacher's and the student's probabilities at temperature 1, and
    :math:`\hat p`, :math:`\hat q` the softmax at temperature T over the classes beside the true
    one. Both are cross-entropies, which do not vanish where the student agrees.

    Args:
        student_logits: z, shape (N, C), C >= 3.
        teacher_logits: t, shape (N, C); no gradient is needed.
        target: y, integer class indices, shape (N,).
        temperature: T > 0, of the other classes.

    Returns:
        The target's and the others' part, scalars >= 0, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ, are not (N, C), or there are fewer than three classes.

    Source: Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels", 2023, section 3 (arXiv:2303.13005).

    >>> import torch
    >>> student, teacher = torch.zeros(1, 3), torch.tensor([[2.0, 1.0, 0.0]])
    >>> losses = nkd_losses(student, teacher, torch.tensor([0]), temperature=1.0)
    >>> [round(loss.item(), 4) for loss in losses]
    [0.7308, 0.6931]
    """
    check_same_logits(student_logits, teacher_logits)
    true_share = column_of(softened(teacher_logits), target).exp()
    of_target = -(true_share * column_of(softened(student_logits), target)).mean()
    log_q = softened(columns_beside(student_logits, target), temperature)
    p = softened(columns_beside(teacher_logits, target), temperature).exp()
    return of_target, rescaled(-(p * log_q).sum(dim=1).mean(), temperature)
