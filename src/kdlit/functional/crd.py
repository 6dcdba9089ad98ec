"""Contrastive representation distillation: which teacher feature belongs to which student's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit import checks
from kdlit.errors import ConfigError
from kdlit.functional.precision import float32_at_least


def crd_scores(
    anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float = 0.07
) -> Tensor:
    r"""Inner products of each anchor with its positive and its negatives, over the temperature.

    .. math:: s_{n0} = a_n^\top p_n / \tau, \qquad s_{nk} = a_n^\top b_{nk} / \tau

    Args:
        anchors: a, one network's embeddings, of unit length, shape (N, D).
        positives: p, the other network's embeddings of the same samples, shape (N, D).
        negatives: b, its embeddings of K other samples for each anchor, shape (N, K, D).
        temperature: tau > 0.

    Returns:
        Scores in float32 or better, shape (N, 1 + K), the positives' first.

    Raises:
        ConfigError: if the shapes do not fit or `temperature` is not > 0.

    >>> a = torch.eye(2)
    >>> crd_scores(a, a, a.flip(0)[:, None], temperature=0.5)
    tensor([[2., 0.],
            [2., 0.]])
    """
    checks.positive("temperature", temperature)
    fits = anchors.ndim == 2 and anchors.shape == positives.shape and negatives.ndim == 3
    if not fits or (len(negatives), negatives.shape[2]) != tuple(anchors.shape):
        raise ConfigError(
            "anchors and positives must be of shape (N, D) and negatives of shape (N, K, D), got "
            f"{tuple(anchors.shape)}, {tuple(positives.shape)} and {tuple(negatives.shape)}"
        )
    a, p, b = map(float32_at_least, (anchors, positives, negatives))
    positive = (a * p).sum(dim=1, keepdim=True)
    negative = torch.bmm(b, a[:, :, None]).squeeze(2)
    return torch.cat([positive, negative], dim=1) / temperature


def crd_log_mean(scores: Tensor) -> Tensor:
    r"""The normalisation of :func:`crd_loss`, from the scores of one batch.

    .. math:: \log \bar e = \log \frac{1}{N (1 + K)} \sum_n \sum_{k=0}^K e^{s_{nk}}

    Args:
        scores: s, shape (N, 1 + K).

    Returns:
        A scalar, without gradients.

    >>> crd_log_mean(torch.full((2, 5), 3.0)).item()
    3.0
    """
    flat = float32_at_least(scores.detach()).flatten()
    return torch.logsumexp(flat, dim=0) - math.log(len(flat))


def crd_loss(
    scores: Tensor, log_mean: Tensor | float = 0.0, are_negatives: Tensor | None = None
) -> Tensor:
    r"""Noise-contrastive estimation: each anchor tells its positive from K negatives.

    .. math:: \mathcal{L} = -\frac1N \sum_n \Bigl( \log h(s_{n0})
        + \sum_{k=1}^K \log \bigl(1 - h(s_{nk})\bigr) \Bigr), \qquad
        h(s) = \frac{e^s / \bar e}{e^s / \bar e + K}

    The paper's critic is :math:`h(s) = e^s / (e^s + K/M)` for a data set of M samples. Its
    authors' code divides :math:`e^s` by a constant Z first, as noise-contrastive estimation does,
    and estimates it as :math:`Z = M \bar e` from the mean of :math:`e^s` over the first batch. M
    then cancels, and what is left stands above. Computed in log space, without the code's 1e-7.

    Args:
        scores: s, shape (N, 1 + K), the positives' first; see :func:`crd_scores`.
        log_mean: the logarithm of :math:`\bar e`, see :func:`crd_log_mean`.
        are_negatives: False where a negative is to be left out, shape (N, K); K is then what is
            left of an anchor's own. None leaves out none.

    Returns:
        A scalar >= 0: the mean over the batch and the sum over the negatives, as in the paper.

    Raises:
        ConfigError: if `scores` is not of shape (N, 1 + K) with K >= 1.

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation", 2020, section 3
    (arXiv:1910.10699); the constant Z after Wu et al., "Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination", 2018 (arXiv:1805.01978).

    >>> round(crd_loss(torch.zeros(1, 2)).item(), 4), round(2 * math.log(2), 4)
    (1.3863, 1.3863)
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ConfigError(
            f"scores must be of shape (N, 1 + K) with K >= 1, got {tuple(scores.shape)}"
        )
    counts = scores.new_full((len(scores), 1), scores.shape[1] - 1)
    if are_negatives is not None:
        counts = are_negatives.sum(dim=1, keepdim=True).clamp(min=1)
    # log(h / (1 - h)), so that log h and log(1 - h) are log-sigmoids.
    odds = float32_at_least(scores) - log_mean - float32_at_least(counts).log()
    negative = F.logsigmoid(-odds[:, 1:])
    if are_negatives is not None:
        negative = negative * are_negatives
    return -(F.logsigmoid(odds[:, 0]) + negative.sum(dim=1)).mean()
