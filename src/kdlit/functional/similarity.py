"""Similarity-preserving distillation: which samples of a batch resemble each other."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_samples
from kdlit.functional.precision import float32_at_least
from kdlit.functional.vectors import unit


def similarity_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Mean squared difference of two matrices of the samples' similarities.

    .. math:: \mathcal{L} = \frac{1}{N^2} \left\lVert G(s) - G(t) \right\rVert_F^2, \quad
        G(a)_{ij} = \frac{a_i \cdot a_j}{\bigl(\sum_k (a_i \cdot a_k)^2\bigr)^{1/2}}

    with features flattened to vectors and each row of the matrix of inner products divided by its
    length. The features themselves may have any size, and be scaled or rotated.

    Args:
        student_features: s, shape (N, ...).
        teacher_features: t, shape (N, ...); only N must agree.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the numbers of samples differ.

    Source: Tung, Mori, "Similarity-Preserving Knowledge Distillation", 2019 (arXiv:1907.09682).

    >>> import torch
    >>> similarity_loss(torch.eye(2), torch.tensor([[0.0, 3.0], [-3.0, 0.0]])).item()
    0.0
    >>> round(similarity_loss(torch.eye(2), torch.ones(2, 5)).item(), 4)
    0.2929
    """
    check_same_samples(student_features, teacher_features)
    return F.mse_loss(_similarities(student_features), _similarities(teacher_features))


def _similarities(features: Tensor) -> Tensor:
    vectors = float32_at_least(features).flatten(1)
    return unit(vectors @ vectors.T)
