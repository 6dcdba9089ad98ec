"""Kullback-Leibler divergence between two categorical distributions given as logits."""

import torch
from torch import Tensor

from kdlit.errors import ConfigError


def float32_at_least(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 where they already are (gradient checks).

    Loss mathematics never runs in half precision: exp(12) overflows float16, and bfloat16 keeps
    three digits.
    """
    return logits if logits.dtype == torch.float64 else logits.float()


def check_same_shape(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raise `ConfigError` unless both are of the same shape (N, C)."""
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        raise ConfigError(
            "student and teacher logits must have the same shape (N, C), got "
            f"{tuple(student_logits.shape)} for the student and "
            f"{tuple(teacher_logits.shape)} for the teacher"
        )


def kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    r"""KL divergence of the student's distribution from the teacher's, in nats per sample.

    .. math:: \mathrm{KL}(p \,\|\, q) = \frac1N \sum_n \sum_c p_{nc} (\log p_{nc} - \log q_{nc}),
        \quad p = \mathrm{softmax}(t/T),\; q = \mathrm{softmax}(z/T)

    Computed from `log_softmax` in float32 (float64 inputs stay float64), so that it is finite for
    logits of any finite size. Summed over classes, averaged over the batch; no factor of T².

    Args:
        student_logits: z, shape (N, C), any floating type.
        teacher_logits: t, shape (N, C).
        temperature: T > 0.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> round(kl_divergence(student, teacher).item(), 4)
    0.3278
    """
    check_same_shape(student_logits, teacher_logits)
    log_q = torch.log_softmax(float32_at_least(student_logits) / temperature, dim=-1)
    log_p = torch.log_softmax(float32_at_least(teacher_logits) / temperature, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()
