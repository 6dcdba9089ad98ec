"""Soft decision trees: what their loss has beside a cross-entropy, and the balance of paths."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.functional.precision import float32_at_least


def leaf_loss(logits: Tensor) -> Tensor:
    r"""What makes the cross-entropy with averaged log probabilities the average of cross-entropies.

    .. math:: \mathcal{L} = -\frac1N \sum_n \log \sum_k e^{z_{nk}}, \quad
        z_{nk} = \sum_\ell P^\ell(x_n) \log Q^\ell_k

    with path probabilities P that sum to 1 and the leaves' distributions Q. Added to the
    cross-entropy of a target distribution t with softmax(z) it gives the loss of a soft decision
    tree, in which every leaf learns for itself:

    .. math:: \mathrm{CE}(z, t) + \mathcal{L} = -\frac1N \sum_n \sum_\ell P^\ell(x_n)
        \sum_k t_{nk} \log Q^\ell_k

    Without it leaves that disagree would answer for each other. It is 0 where all leaves that a
    sample comes to are the same.

    Args:
        logits: z, shape (N, C), not normalised.

    Returns:
        A scalar >= 0.

    Source: Frosst, Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017, equation
    3 (arXiv:1711.09784), which lacks the minus sign of a cross-entropy inside its logarithm; this
    is the loss that its text describes.

    >>> two_leaves = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    >>> round(leaf_loss(torch.tensor([[0.5, 0.5]]) @ two_leaves).item(), 4)
    0.5108
    >>> abs(round(leaf_loss(torch.tensor([[1.0, 0.0]]) @ two_leaves).item(), 4))
    0.0
    """
    return -torch.logsumexp(float32_at_least(logits), dim=1).mean()


def path_visits(log_paths: Tensor) -> Tensor:
    r"""Return the logarithms of how much of a batch inner nodes send to the left and to the right.

    .. math:: v_{i,\text{left}} = \log \frac1N \sum_n P^{2i+1}(x_n), \quad
        v_{i,\text{right}} = \log \frac1N \sum_n P^{2i+2}(x_n)

    Args:
        log_paths: log P, shape (N, 2^(D + 1) - 1), of the nodes level by level, as
            :class:`kdlit.models.SoftDecisionTree` gives it at its layer `paths`.

    Returns:
        v, shape (2, 2^D - 1): left and right.

    Raises:
        ConfigError: if the shape is not that of a binary tree.

    >>> path_visits(torch.tensor([[1.0, 0.25, 0.75], [1.0, 0.75, 0.25]]).log()).exp()
    tensor([[0.5000],
            [0.5000]])
    """
    nodes = log_paths.shape[-1]
    if log_paths.ndim != 2 or nodes < 3 or (nodes + 1) & nodes:
        raise ConfigError(
            "path probabilities of a binary tree have the shape (N, 2^(depth + 1) - 1), got "
            f"{tuple(log_paths.shape)}"
        )
    children = torch.logsumexp(float32_at_least(log_paths[:, 1:]), dim=0)
    return (children - math.log(len(log_paths))).reshape(-1, 2).T


def path_balance_loss(visits: Tensor) -> Tensor:
    r"""Keep inner nodes from sending everything to one side, those near the root above all.

    .. math:: \mathcal{L} = -\sum_i 2^{-d_i} \tfrac12 \bigl(\log \alpha_i + \log (1 - \alpha_i)
        \bigr), \quad \alpha_i = \frac{\sum_n P^i(x_n) \, p_i(x_n)}{\sum_n P^i(x_n)}

    over the inner nodes i, which lie at depth d (the root at 0) and send the share alpha of what
    comes to them to the right. It is smallest, D log 2 for D levels, where all shares are one half.

    Args:
        visits: log of what goes to the left and to the right, up to a factor, shape (2, 2^D - 1);
            see :func:`path_visits`.

    Returns:
        A scalar >= 0.

    Source: Frosst, Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017,
    equations 4 and 5, with the decay of section 3 (arXiv:1711.09784).

    >>> round(path_balance_loss(torch.tensor([[0.5], [0.5]]).log()).item(), 4)
    0.6931
    >>> round(path_balance_loss(torch.tensor([[0.9], [0.1]]).log()).item(), 4)
    1.204
    """
    shares = F.log_softmax(float32_at_least(visits), dim=0)
    return -(shares.mean(dim=0) * 0.5 ** node_depths(visits)).sum()


def node_depths(visits: Tensor) -> Tensor:
    """Return the depths of inner nodes (..., 2^D - 1), level by level from the root at 0.

    >>> node_depths(torch.zeros(2, 7))
    tensor([0., 1., 1., 2., 2., 2., 2.])
    """
    return torch.arange(1, visits.shape[-1] + 1, device=visits.device).float().log2().floor()
