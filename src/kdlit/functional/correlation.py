"""Correlation congruence: a kernel of every two samples of a batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_samples
from kdlit.functional.precision import float32_at_least
from kdlit.functional.vectors import unit


def correlation_loss(
    student_features: Tensor, teacher_features: Tensor, gamma: float = 0.4, order: int = 2
) -> Tensor:
    r"""Mean squared difference of two networks' Gaussian kernels between samples.

    .. math:: \mathcal{L} = \frac{1}{N^2} \sum_{i,j} \bigl(k(s_i, s_j) - k(t_i, t_j)\bigr)^2, \quad
        k(a, b) = e^{-2\gamma} \sum_{p=0}^{P} \frac{(2\gamma)^p}{p!} (\hat a \cdot \hat b)^p

    with features of unit length :math:`\hat a`, for which k is the Taylor series of the Gaussian
    kernel :math:`\exp(-\gamma \lVert \hat a - \hat b \rVert^2)` up to the order P.

    Args:
        student_features: s, shape (N, ...), flattened to vectors.
        teacher_features: t, shape (N, ...); only N must agree.
        gamma: > 0, the kernel's sharpness.
        order: P >= 1; the first order compares cosines alone.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the numbers of samples differ.

    Source: Peng et al., "Correlation Congruence for Knowledge Distillation", 2019, section 3
    (arXiv:1904.01802).

    >>> student, teacher = torch.eye(2), torch.ones(2, 3)
    >>> correlation_loss(student, 7 * student).item()
    0.0
    >>> round(correlation_loss(student, teacher).item(), 4)
    0.1266
    """
    check_same_samples(student_features, teacher_features)
    ours, theirs = (_kernel(a, gamma, order) for a in (student_features, teacher_features))
    return F.mse_loss(ours, theirs)


def _kernel(features: Tensor, gamma: float, order: int) -> Tensor:
    directions = unit(float32_at_least(features).flatten(1))
    argument = 2 * gamma * (directions @ directions.T)
    # Horner's rule: 1 + x (1 + x/2 (1 + x/3 ...)).
    series = torch.ones_like(argument)
    for power in range(order, 0, -1):
        series = 1 + argument / power * series
    return math.exp(-2 * gamma) * series
