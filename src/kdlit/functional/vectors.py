"""Directions of vectors, with gradients that stay finite where there is no direction."""

import torch
from torch import Tensor


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    r"""Return vectors divided by their Euclidean length; those of length 0 stay 0.

    .. math:: u(x) = \frac{x}{\lVert x \rVert_2}, \quad u(0) = 0

    A zero vector gets the gradient 0, which is neither NaN nor, as with a small constant in the
    denominator, 10^12 times the others'. The square of no large or small entry is taken: vectors
    are first divided by their largest entry, so that none overflows.

    Args:
        vectors: x, along `dim`.
        dim: the dimension.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    # Constants for the gradient: the result does not depend on the scale.
    largest = vectors.detach().abs().amax(dim, keepdim=True)
    is_zero = largest == 0
    scaled = vectors / largest.masked_fill(is_zero, 1.0)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
    return (scaled / length.masked_fill(is_zero, 1.0)).masked_fill(is_zero, 0.0)
