"""Multi-level logit distillation: how predictions agree among samples, and among classes."""

from torch import Tensor

from kdlit.functional.checks import check_same_logits
from kdlit.functional.temperature import softened


def batch_correlation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    r"""The samples of a batch resemble each other as they do to the teacher.

    .. math:: \mathcal{L}_\text{batch} = \frac1N \lVert P P^\top - Q Q^\top \rVert_F^2

    with P = softmax(t/T) and Q = softmax(z/T), matrices (N, C). No factor of T².

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        temperature: T > 0.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Jin, Wang, Lin, "Multi-Level Logit Distillation", 2023, section 3 (CVPR).

    >>> import torch
    >>> sure, turned = torch.tensor([[99.0, 0.0], [0.0, 99.0]]), torch.tensor([[0.0, 99.0]] * 2)
    >>> batch_correlation_loss(sure, turned, 1.0).item()
    1.0
    """
    q, p = _probabilities(student_logits, teacher_logits, temperature)
    return (p @ p.T - q @ q.T).square().sum() / len(p)


def class_correlation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    r"""The classes are confused with each other as they are by the teacher.

    .. math:: \mathcal{L}_\text{class} = \frac1C \lVert P^\top P - Q^\top Q \rVert_F^2

    with P = softmax(t/T) and Q = softmax(z/T), matrices (N, C). The entries of these matrices are
    sums over the batch, as in the paper: the loss grows with the batch size. No factor of T².

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        temperature: T > 0.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Jin, Wang, Lin, "Multi-Level Logit Distillation", 2023, section 3 (CVPR).

    >>> import torch
    >>> sure, turned = torch.tensor([[99.0, 0.0], [0.0, 99.0]]), torch.tensor([[0.0, 99.0]] * 2)
    >>> class_correlation_loss(sure, turned, 1.0).item()
    1.0
    """
    q, p = _probabilities(student_logits, teacher_logits, temperature)
    return (p.T @ p - q.T @ q).square().sum() / p.shape[1]


def _probabilities(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    check_same_logits(student_logits, teacher_logits)
    return softened(student_logits, temperature).exp(), softened(teacher_logits, temperature).exp()
