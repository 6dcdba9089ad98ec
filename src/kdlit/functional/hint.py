"""Hints: the student's features are regressed onto the teacher's."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_features
from kdlit.functional.precision import float32_at_least


def hint_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Mean squared error between (projected) student features and the teacher's.

    .. math:: \mathcal{L} = \frac{1}{N D} \sum_n \lVert r(s_n) - t_n \rVert_2^2

    The paper has the factor 1/2 and sums over the D features; the mean keeps the size of the loss
    when the layer changes, as in later implementations.

    Args:
        student_features: r(s), after the regressor r, shape (N, ...) with D values per sample.
        teacher_features: t, of the same shape.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes differ.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, equation 3 (arXiv:1412.6550).

    >>> import torch
    >>> hint_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item()
    4.0
    """
    check_same_features(student_features, teacher_features)
    return F.mse_loss(float32_at_least(student_features), float32_at_least(teacher_features))
