"""Neuron selectivity transfer: where in an image each channel is active."""

from torch import Tensor

from kdlit.functional.checks import check_maps, check_same_samples
from kdlit.functional.maps import averaged_to_the_smaller
from kdlit.functional.precision import float32_at_least
from kdlit.functional.vectors import unit


def nst_loss(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy between two networks' channels, as sets of vectors.

    .. math:: \mathcal{L} = \frac1N \sum_n \left(
        \frac{1}{C_T^2} \sum_{i,i'} k(t_{ni}, t_{ni'}) + \frac{1}{C_S^2} \sum_{j,j'}
        k(s_{nj}, s_{nj'}) - \frac{2}{C_T C_S} \sum_{i,j} k(t_{ni}, s_{nj}) \right)

    with the polynomial kernel :math:`k(a, b) = (\hat a \cdot \hat b)^2` of the channels' maps,
    each flattened to H W values and of unit length. A channel that is 0 everywhere stays 0. Maps of
    different sizes are averaged to the smaller one. The numbers of channels may differ.

    Args:
        student_maps: s, shape (N, C_S, H, W).
        teacher_maps: t, shape (N, C_T, H', W').

    Returns:
        A scalar >= 0, but for rounding; 0 where both have channels that are active alike, in
        whatever order.

    Raises:
        ConfigError: if one of them is not (N, C, H, W), or the numbers of samples differ.

    Source: Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
    2017 (arXiv:1707.01219), with the polynomial kernel, d = 2 and c = 0.

    >>> import torch
    >>> student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    >>> nst_loss(student, 5 * student.flip(1)).item()
    0.0
    >>> nst_loss(student, student[:, :1]).item()
    0.5
    """
    check_maps(student_maps, "student")
    check_maps(teacher_maps, "teacher")
    check_same_samples(student_maps, teacher_maps)
    ours, theirs = (
        unit(maps.flatten(2))
        for maps in averaged_to_the_smaller(
            float32_at_least(student_maps), float32_at_least(teacher_maps)
        )
    )
    return _kernel(theirs, theirs) + _kernel(ours, ours) - 2 * _kernel(theirs, ours)


def _kernel(one: Tensor, two: Tensor) -> Tensor:
    """Return the kernel of all pairs of channels, averaged over pairs and samples."""
    return (one @ two.transpose(1, 2)).square().mean()
