"""Factor transfer: what a paraphraser makes of the teacher, and a translator of the student."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_features
from kdlit.functional.precision import float32_at_least


def factor_loss(student_factors: Tensor, teacher_factors: Tensor) -> Tensor:
    r"""Mean absolute difference between two networks' factors, each of unit length.

    .. math:: \mathcal{L} = \frac{1}{N D} \sum_n \left\lVert
        \frac{f_{S,n}}{\lVert f_{S,n} \rVert_2} - \frac{f_{T,n}}{\lVert f_{T,n} \rVert_2}
        \right\rVert_1

    The paper leaves the order p of the outer norm open; this is p = 1. The norm sums over the D
    values of a factor; here their mean is taken, for which the weights in use were chosen.

    Args:
        student_factors: f_S, shape (N, ...) with D values per sample.
        teacher_factors: f_T, of the same shape.

    Returns:
        A scalar >= 0; 0 where the factors point the same way, whatever their length.

    Raises:
        ConfigError: if the shapes differ.

    Source: Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor
    Transfer", 2018, section 3 (arXiv:1802.04977).

    >>> import torch
    >>> factor_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])).item()
    1.0
    >>> factor_loss(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]])).item()
    0.0
    """
    check_same_features(student_factors, teacher_factors)
    ours, theirs = (
        F.normalize(float32_at_least(factors).flatten(1), dim=1)
        for factors in (student_factors, teacher_factors)
    )
    return F.l1_loss(ours, theirs)
