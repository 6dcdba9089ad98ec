"""Probabilistic knowledge transfer: which sample of a batch is likely a neighbour of which."""

import torch
from torch import Tensor

from kdlit.functional.checks import check_same_samples
from kdlit.functional.precision import float32_at_least
from kdlit.functional.vectors import unit

EPS = 1e-7
"""Keeps the logarithm finite for opposite features; the constant of the authors' code."""


def pkt_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""KL divergence between the neighbourhoods of samples in the two networks' features.

    .. math:: \mathcal{L} = \frac{1}{N^2} \sum_i \sum_{j \ne i} p_{j|i} \log
        \frac{p_{j|i}}{q_{j|i}}, \quad p_{j|i} = \frac{K(t_i, t_j)}{\sum_{k \ne i} K(t_i, t_k)},
        \quad q_{j|i} = \frac{K(s_i, s_j)}{\sum_{k \ne i} K(s_i, s_k)}

    with the cosine kernel :math:`K(a, b) = \tfrac12 (\cos(a, b) + 1)`. The paper sums over all
    pairs; the mean over N² is that of the authors' code, which the weights in use belong to. Their
    code counts a sample as its own neighbour; here it is left out, as in the paper.

    Features of length 0 have the cosine 0 with all others. In a batch of two samples each is the
    other's only neighbour, and the loss is 0.

    Args:
        student_features: s, shape (N, ...), flattened to vectors.
        teacher_features: t, shape (N, ...); only N must agree.

    Returns:
        A scalar >= 0, in nats.

    Raises:
        ConfigError: if the numbers of samples differ.

    Source: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer",
    2018, section 3 (arXiv:1803.10837).

    >>> student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> round(pkt_loss(student, 3 * student).item(), 4)
    0.0
    >>> round(pkt_loss(student, torch.ones(3, 4)).item(), 2)
    1.56
    """
    check_same_samples(student_features, teacher_features)
    log_q, log_p = (_log_neighbours(a) for a in (student_features, teacher_features))
    return (log_p.exp() * (log_p - log_q)).sum() / len(log_p) ** 2


def _log_neighbours(features: Tensor) -> Tensor:
    """Return the logarithms of the conditional probabilities, (N, N - 1)."""
    directions = unit(float32_at_least(features).flatten(1))
    kernel = ((directions @ directions.T + 1) / 2).clamp_min(0) + EPS
    return torch.log_softmax(_without_diagonal(kernel).log(), dim=1)


def _without_diagonal(matrix: Tensor) -> Tensor:
    """Return (N, N - 1): the entries between two of the diagonal are N in a row."""
    count = len(matrix)
    return matrix.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)
