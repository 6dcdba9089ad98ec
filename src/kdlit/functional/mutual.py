"""Mutual learning: what a network learns from others that learn at the same time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.functional.divergence import kl_divergence


def mutual_loss(logits: Tensor, others: Sequence[Tensor]) -> Tensor:
    r"""Mean KL divergence of a network's distribution from those of the others.

    .. math:: \mathcal{L}(z) = \frac{1}{K - 1} \sum_{l=1}^{K - 1} \mathrm{KL}\bigl(
        \mathrm{softmax}(z^l) \,\|\, \mathrm{softmax}(z)\bigr)

    The others are constants here: each network has a loss of its own.

    Args:
        logits: z of the network that learns, shape (N, C).
        others: those of the K - 1 others, each of shape (N, C); no gradient goes to them.

    Returns:
        A scalar >= 0, in nats, averaged over the batch.

    Raises:
        ConfigError: if there are no others, or shapes differ.

    Source: Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning", 2018, section 3
    (arXiv:1706.00384).

    >>> one, two = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> round(mutual_loss(one, [two]).item(), 4), round(mutual_loss(one, [two, one]).item(), 4)
    (0.3278, 0.1639)
    """
    if not others:
        raise ConfigError("mutual learning needs two networks or more, got one")
    return torch.stack([kl_divergence(logits, other.detach()) for other in others]).mean()
