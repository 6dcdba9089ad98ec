"""The precision of loss mathematics."""

import torch
from torch import Tensor


def float32_at_least(values: Tensor) -> Tensor:
    """Return values in float32, or in float64 where they already are (gradient checks).

    Loss mathematics never runs in half precision: exp(12) overflows float16, and bfloat16 keeps
    three digits.

    >>> float32_at_least(torch.zeros(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values if values.dtype == torch.float64 else values.float()
