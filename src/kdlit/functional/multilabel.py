"""Several labels a sample, each there or not: the losses of sigmoid outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.functional.checks import check_same_logits
from kdlit.functional.precision import float32_at_least
from kdlit.functional.temperature import rescaled


def binary_kl_divergence(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    r"""KL divergence of independent labels, from the student to the teacher, in nats per label.

    .. math:: \frac1{NC} \sum_{n,c} \Bigl( p_{nc} \log \frac{p_{nc}}{q_{nc}}
        + (1 - p_{nc}) \log \frac{1 - p_{nc}}{1 - q_{nc}} \Bigr),
        \quad p = \sigma(t/T),\; q = \sigma(z/T)

    Computed from `logsigmoid` in float32 (float64 inputs stay float64), so that it is finite for
    logits of any finite size. Averaged over samples and labels; no factor of T².

    Args:
        student_logits: z, shape (N, C), any floating type.
        teacher_logits: t, shape (N, C).
        temperature: T > 0.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 2.0]])
    >>> round(binary_kl_divergence(student, teacher).item(), 4)
    0.1639
    """
    check_same_logits(student_logits, teacher_logits)
    z, t = (float32_at_least(said) / temperature for said in (student_logits, teacher_logits))
    there = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(z))
    absent = torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-z))
    return (there + absent).mean()


def multilabel_soft_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    r"""Soft labels where a sample has several: the teacher's softened probability of each.

    .. math:: \mathcal{L} = T^2 \, \frac1{NC} \sum_{n,c} \mathrm{KL}\bigl(
        \mathrm{Bern}(\sigma(t_{nc}/T)) \,\|\, \mathrm{Bern}(\sigma(z_{nc}/T))\bigr)

    Each label is a classification of two classes of its own, with logits (z, 0); this is
    :func:`kdlit.functional.soft_label_loss` of each, averaged over the labels. It has the
    gradient of the binary cross-entropy with soft targets, and is zero where the two agree.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        temperature: T > 0.

    Returns:
        A scalar >= 0, in nats, averaged over samples and labels.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: at T = 1 the multi-label logits distillation of Yang et al., "Multi-Label Knowledge
    Distillation", 2023 (arXiv:2308.06453), divided by the number of labels, over which it sums.
    The temperature is that of Hinton, Vinyals, Dean, 2015 (arXiv:1503.02531).

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 2.0]])
    >>> round(multilabel_soft_loss(student, teacher, temperature=4.0).item(), 4)
    0.2424
    """
    divergence = binary_kl_divergence(student_logits, teacher_logits, temperature)
    return rescaled(divergence, temperature)


def multilabel_truth_loss(student_logits: Tensor, target: Tensor) -> Tensor:
    r"""Ground truth of several labels: the binary cross-entropy of each.

    .. math:: \mathcal{L} = -\frac1{NC} \sum_{n,c} \bigl( y_{nc} \log \sigma(z_{nc})
        + (1 - y_{nc}) \log \sigma(-z_{nc}) \bigr)

    Args:
        student_logits: z, shape (N, C).
        target: y, 1 where a label is there and 0 where not, shape (N, C), any type.

    Returns:
        A scalar >= 0, in nats, averaged over samples and labels.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    >>> import torch
    >>> round(multilabel_truth_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[1, 1]])).item(), 4)
    0.41
    """
    check_labels(student_logits, target)
    logits = float32_at_least(student_logits)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


def check_labels(logits: Tensor, target: Tensor) -> None:
    """Raise `ConfigError` unless there is one target for each logit of shape (N, C)."""
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ConfigError(
            "with several labels a sample the ground truth must be 0 or 1 for each, of the logits' "
            f"shape (N, C): got {tuple(target.shape)} for logits {tuple(logits.shape)}"
        )
