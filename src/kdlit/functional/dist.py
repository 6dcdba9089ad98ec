"""DIST: correlation with the teacher, along classes and along samples."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_logits
from kdlit.functional.temperature import rescaled, softened


def dist_losses(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    r"""How far the predictions are from being correlated, within a sample and within a class.

    .. math::
        \mathcal{L}_\text{inter} = T^2 \Bigl(1 - \frac1N \sum_n \rho(q_{n\cdot}, p_{n\cdot})\Bigr),
        \qquad
        \mathcal{L}_\text{intra} = T^2 \Bigl(1 - \frac1C \sum_c \rho(q_{\cdot c}, p_{\cdot c})\Bigr)

    with p = softmax(t/T), q = softmax(z/T) and Pearson's correlation :math:`\rho` (0 where one
    side is constant). A correlation asks for the same relations and not for the same values. The
    paper prints no T²; its code has it.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        temperature: T > 0.

    Returns:
        The inter-class and the intra-class loss, scalars in [0, 2 T²].

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022, section 3
    (arXiv:2205.10536).

    >>> import torch
    >>> teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> [round(loss.item(), 4) for loss in dist_losses(0.1 * teacher, teacher, 1.0)]
    [0.0, 0.0]
    >>> [round(loss.item(), 4) for loss in dist_losses(-teacher, teacher, 1.0)]
    [2.0, 2.0]
    """
    check_same_logits(student_logits, teacher_logits)
    q, p = softened(student_logits, temperature).exp(), softened(teacher_logits, temperature).exp()
    return (
        rescaled(1 - _correlation(q, p).mean(), temperature),
        rescaled(1 - _correlation(q.T, p.T).mean(), temperature),
    )


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of each row."""
    ours, theirs = (values - values.mean(dim=1, keepdim=True) for values in (a, b))
    return F.cosine_similarity(ours, theirs, dim=1)
