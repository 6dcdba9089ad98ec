"""From a drawing to a digit of MNIST's form."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.errors import DataError

SIDE = 28
"""Pixels of a side of MNIST's images."""

_BOX = 20


def digit_of(drawing: Tensor) -> Tensor:
    """Place a drawing as MNIST places its digits.

    What is drawn is scaled, its shape kept, to fit a box of 20x20 pixels, which is laid into 28x28
    so that its centre of mass is the centre of the image, pixel 14 counted from 0.

    Args:
        drawing: bright on dark, in 0 to 255, shape (H, W), of any size.

    Returns:
        uint8, shape (1, 28, 28).

    Raises:
        DataError: if nothing is drawn.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", on how its digits
    were normalised.

    >>> drawing = torch.zeros(112, 112)
    >>> drawing[10:90, 5:15] = 255
    >>> digit = digit_of(drawing)
    >>> rows, columns = torch.nonzero(digit[0]).unbind(dim=1)
    >>> digit.shape, (rows.max() - rows.min() + 1).item()
    (torch.Size([1, 28, 28]), 20)
    """
    drawn = drawing.float()
    rows, columns = torch.nonzero(drawn > 0).unbind(dim=1)
    if not len(rows):
        raise DataError("nothing is drawn")
    cut = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = _BOX / max(cut.shape)
    height, width = (max(round(scale * side), 1) for side in cut.shape)
    small = F.interpolate(
        cut[None, None], (height, width), mode="bilinear", antialias=True, align_corners=False
    )[0, 0].clamp(0, 255)
    top, left = (_start(small.sum(dim=1 - axis), small.sum()) for axis in (0, 1))
    digit = torch.zeros(SIDE, SIDE)
    digit[top : top + height, left : left + width] = small
    return digit.round().to(torch.uint8)[None]


def _start(profile: Tensor, mass: Tensor) -> int:
    """Return where a row or column of sums begins if its centre of mass is to be the middle."""
    centre = float((profile * torch.arange(len(profile))).sum() / mass)
    return min(max(round(SIDE / 2 - centre), 0), SIDE - len(profile))
