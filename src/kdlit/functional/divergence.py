"""Divergences between two categorical distributions given as logits."""

import math

import torch
from torch import Tensor

from kdlit.functional.checks import check_same_logits
from kdlit.functional.temperature import softened


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
    check_same_logits(student_logits, teacher_logits)
    return _kl(softened(teacher_logits, temperature), softened(student_logits, temperature))


def jensen_shannon_divergence(
    student_logits: Tensor, teacher_logits: Tensor, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    r"""Generalised Jensen-Shannon divergence, in nats per sample.

    .. math:: \mathrm{JSD}_\beta(p \,\|\, q) = \beta \, \mathrm{KL}(p \,\|\, m)
        + (1 - \beta) \, \mathrm{KL}(q \,\|\, m), \quad m = \beta p + (1 - \beta) q

    with p the teacher's and q the student's distribution at temperature T. It is bounded by
    log 2. At the ends, where the formula gives 0, stand the limits of its direction:
    KL(p || q) for beta = 0 and KL(q || p) for beta = 1. These are the limits of
    JSD / (beta (1 - beta)): near an end the divergence itself is smaller by that factor.

    Args:
        student_logits: z, shape (N, C), any floating type.
        teacher_logits: t, shape (N, C).
        beta: weight of the teacher in the mixture, in [0, 1].
        temperature: T > 0.

    Returns:
        A scalar >= 0, averaged over the batch; no factor of T².

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Agarwal et al., "On-Policy Distillation of Language Models: Learning from
    Self-Generated Mistakes", 2024, section 2 (arXiv:2306.13649). The two ends are those of its
    implementation in the library TRL.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> round(jensen_shannon_divergence(student, teacher).item(), 4)
    0.0895
    """
    check_same_logits(student_logits, teacher_logits)
    log_p, log_q = softened(teacher_logits, temperature), softened(student_logits, temperature)
    if beta == 0:
        return _kl(log_p, log_q)
    if beta == 1:
        return _kl(log_q, log_p)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()
