"""Maps of two networks, brought to one size."""

import torch.nn.functional as F
from torch import Tensor


def averaged_to_the_smaller(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps (N, C, H, W) averaged to the smaller height and the smaller width.

    >>> import torch
    >>> one, two = averaged_to_the_smaller(torch.zeros(1, 3, 8, 4), torch.zeros(1, 5, 6, 6))
    >>> one.shape, two.shape
    (torch.Size([1, 3, 6, 4]), torch.Size([1, 5, 6, 4]))
    """
    size = (min(one.shape[2], two.shape[2]), min(one.shape[3], two.shape[3]))
    first, second = (
        maps if tuple(maps.shape[2:]) == size else F.adaptive_avg_pool2d(maps, size)
        for maps in (one, two)
    )
    return first, second
