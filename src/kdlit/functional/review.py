"""Knowledge review: maps are compared as a whole and in ever coarser averages."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_maps, check_same_features
from kdlit.functional.precision import float32_at_least

LEVELS = (4, 2, 1)
"""Sides of the coarser maps, as in the authors' code."""


def hierarchical_context_loss(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    r"""Mean squared error of maps and of their averages over 4x4, 2x2 and 1x1 regions.

    .. math:: \mathcal{L} = \frac{\sum_{l=0}^{L} 2^{-l} \, \mathrm{MSE}\bigl(P_l(s), P_l(t)\bigr)}
        {\sum_{l=0}^{L} 2^{-l}}

    with :math:`P_0` the identity and :math:`P_1, P_2, \dots` averages to k x k for those of
    k = 4, 2, 1 that are smaller than the maps.

    Args:
        student_maps: s, after fusion, shape (N, C, H, W).
        teacher_maps: t, of the same shape.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes differ or are not (N, C, H, W).

    Source: Chen et al., "Distilling Knowledge via Knowledge Review", 2021, section 3
    (arXiv:2104.09044); the weights 1, 1/2, 1/4, ... are those of the authors' code.

    >>> import torch
    >>> hierarchical_context_loss(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 2.0)).item()
    4.0
    """
    check_maps(student_maps, "student")
    check_same_features(student_maps, teacher_maps)
    ours, theirs = float32_at_least(student_maps), float32_at_least(teacher_maps)
    loss, weight, total = F.mse_loss(ours, theirs), 1.0, 1.0
    for side in LEVELS:
        if side < min(ours.shape[2:]):
            weight /= 2
            total += weight
            coarse = [F.adaptive_avg_pool2d(maps, side) for maps in (ours, theirs)]
            loss = loss + weight * F.mse_loss(coarse[0], coarse[1])
    return loss / total
