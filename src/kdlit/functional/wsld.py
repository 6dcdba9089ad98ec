"""Weighted soft labels: less of them where the student already does better than the teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_logits
from kdlit.functional.precision import float32_at_least
from kdlit.functional.temperature import rescaled, softened

_EPSILON = 1e-7


def wsld_weights(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    r"""Each sample's weight: how much the student has still to learn there.

    .. math:: w_n = 1 - \exp\Bigl(-\frac{\mathrm{CE}(z_n, y_n)}{\mathrm{CE}(t_n, y_n)}\Bigr)

    at temperature 1. A small number in the denominator, the authors' 1e-7, keeps it from 0. The
    weights are constants: no gradient goes through them.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C).
        target: y, integer class indices, shape (N,).

    Returns:
        Weights in [0, 1], shape (N,).

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
    Tradeoff Perspective", 2021, section 3 (arXiv:2102.00650).

    >>> import torch
    >>> sure, unsure, y = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([0])
    >>> [round(wsld_weights(*pair, y).item(), 3) for pair in ((unsure, sure), (sure, unsure))]
    [1.0, 0.0]
    """
    check_same_logits(student_logits, teacher_logits)
    ours, theirs = (
        F.cross_entropy(float32_at_least(z.detach()), target.to(torch.long), reduction="none")
        for z in (student_logits, teacher_logits)
    )
    return 1 - torch.exp(-ours / (theirs + _EPSILON))


def wsld_loss(
    student_logits: Tensor, teacher_logits: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    r"""Cross-entropy with soft labels, each sample with its own weight.

    .. math:: \mathcal{L} = -T^2 \, \frac1N \sum_n w_n \sum_c p_{nc} \log q_{nc}

    with p = softmax(t/T), q = softmax(z/T). A cross-entropy, as the authors have it: it does not
    vanish where the student agrees, and has the gradient of the divergence.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        weights: w, shape (N,); see :func:`wsld_weights`.
        temperature: T > 0.

    Returns:
        A scalar >= 0, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
    Tradeoff Perspective", 2021, section 3 (arXiv:2102.00650).

    >>> import torch
    >>> same = torch.zeros(2, 4)
    >>> round(wsld_loss(same, same, torch.tensor([0.5, 0.5]), temperature=1.0).item(), 4)
    0.6931
    """
    check_same_logits(student_logits, teacher_logits)
    p = softened(teacher_logits, temperature).exp()
    per_sample = -(p * softened(student_logits, temperature)).sum(dim=1)
    return rescaled((weights * per_sample).mean(), temperature)
