"""What a temperature does to logits, and what it does to the size of a loss."""

import torch
from torch import Tensor

from kdlit.functional.precision import float32_at_least


def softened(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Log-probabilities at a temperature: `log_softmax` in float32 at least.

    .. math:: \log \mathrm{softmax}(z / T)

    Args:
        logits: z, shape (..., C), any floating type.
        temperature: T > 0.

    >>> import torch
    >>> softened(torch.tensor([1e4, 0.0], dtype=torch.float16)).tolist()
    [0.0, -10000.0]
    """
    return torch.log_softmax(float32_at_least(logits) / temperature, dim=-1)


def rescaled(loss: Tensor, temperature: float) -> Tensor:
    """Multiply a loss between softened distributions by T².

    It keeps the size of the gradient as T grows, since each of the two softmaxes shrinks it by
    1/T. The factor stands in this function and nowhere else.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2
    (arXiv:1503.02531).

    >>> import torch
    >>> rescaled(torch.tensor(0.5), temperature=4.0).item()
    8.0
    """
    return temperature**2 * loss
