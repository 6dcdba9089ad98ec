"""Attention transfer: where the student is active, compared with where the teacher is."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_maps, check_same_samples
from kdlit.functional.maps import averaged_to_the_smaller
from kdlit.functional.precision import float32_at_least
from kdlit.functional.vectors import unit


def attention_loss(student_maps: Tensor, teacher_maps: Tensor, p: float = 2.0) -> Tensor:
    r"""Mean squared difference of the two networks' attention maps, each of unit length.

    .. math:: \mathcal{L} = \frac{1}{N H W} \sum_n \left\lVert
        \frac{Q(s_n)}{\lVert Q(s_n) \rVert_2} - \frac{Q(t_n)}{\lVert Q(t_n) \rVert_2}
        \right\rVert_2^2, \quad Q(a) = \sum_c |a_c|^p \in \mathbb{R}^{HW}

    Two departures from equation 2 of the paper, both as in its authors' code, which the weights in
    use belong to: the distance is squared and its factor 1/2 left out, and the mean is taken over
    the positions of the map, where the paper divides its weight by their number.

    Attention maps of different sizes are averaged to the smaller one; a map that is 0 everywhere
    has no attention and stays 0.

    Args:
        student_maps: s, shape (N, C, H, W).
        teacher_maps: t, shape (N, C', H', W'); channels and size may differ.
        p: the power >= 1; the higher, the more the strongest activations count.

    Returns:
        A scalar >= 0; 0 where the attention is distributed alike, whatever its amount.

    Raises:
        ConfigError: if one of them is not (N, C, H, W), or the numbers of samples differ.

    Source: Zagoruyko, Komodakis, "Paying More Attention to Attention", 2017, section 3.1
    (arXiv:1612.03928).

    >>> import torch
    >>> student = torch.tensor([[[[2.0, 0.0]]]])
    >>> attention_loss(student, torch.tensor([[[[0.0, 5.0]]]])).item()
    1.0
    >>> attention_loss(student, torch.tensor([[[[5.0, 0.0]]]])).item()
    0.0
    """
    check_maps(student_maps, "student")
    check_maps(teacher_maps, "teacher")
    check_same_samples(student_maps, teacher_maps)
    ours, theirs = averaged_to_the_smaller(attention(student_maps, p), attention(teacher_maps, p))
    return F.mse_loss(unit(ours.flatten(1)), unit(theirs.flatten(1)))


def attention(maps: Tensor, p: float = 2.0) -> Tensor:
    r"""Return the sum over channels of the activations' p-th powers, shape (N, 1, H, W).

    >>> import torch
    >>> attention(torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]]]))
    tensor([[[[10.,  4.]]]])
    """
    return float32_at_least(maps).abs().pow(p).sum(dim=1, keepdim=True)
