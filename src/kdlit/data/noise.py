"""Training labels made wrong on purpose."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdlit.randomness import derive_seed, uniform

# The numbers of labels are others than those of views and of the order, which derive from the same
# seed and the number of an epoch.
_STREAM = (0x6E6F697365, 0)


def symmetric_noise(
    labels: Tensor, index: Tensor, classes: Sequence[int], fraction: float, seed: int
) -> Tensor:
    r"""Replace each label with probability `fraction` by one of the other classes.

    .. math::
        P(\tilde y = y) = 1 - \epsilon, \qquad
        P(\tilde y = k) = \frac{\epsilon}{K - 1} \quad (k \neq y)

    At :math:`\epsilon = (K - 1) / K` labels say nothing of the truth any more. What becomes of a
    label depends on (seed, index) alone: not on which others there are. A label that is wrong at
    one fraction is wrong in the same way at every larger one.

    Args:
        labels: class indices, shape (N,).
        index: each sample's position in its data set, shape (N,).
        classes: the K classes that there are, ascending, at least two.
        fraction: epsilon, in [0, 1).
        seed: any integer.

    Returns:
        Labels of the same shape and type.

    Source: Ghosh, Kumar, Sastry, "Robust Loss Functions under Label Noise for Deep Neural
    Networks", 2017 (arXiv:1712.09482), where this noise is called symmetric, or uniform.

    >>> labels, index = torch.tensor([3, 3, 5, 7]), torch.arange(4)
    >>> wrong = symmetric_noise(labels, index, [3, 5, 7], fraction=0.99, seed=0)
    >>> bool((wrong != labels).all()), set(wrong.tolist()) <= {3, 5, 7}
    (True, True)
    """
    numbers = uniform(derive_seed(seed, *_STREAM), index, 2).double()
    known = torch.tensor(classes, device=labels.device)
    further = 1 + (numbers[:, 1] * (len(known) - 1)).long()
    other = known[(torch.searchsorted(known, labels.long()) + further) % len(known)]
    return torch.where(numbers[:, 0] < fraction, other.to(labels.dtype), labels)
