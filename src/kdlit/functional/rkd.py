"""Relational knowledge distillation: distances and angles between the samples of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_samples
from kdlit.functional.precision import float32_at_least
from kdlit.functional.vectors import unit


def rkd_distance_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Huber loss between the samples' distances, relative to their mean, in both networks.

    .. math:: \mathcal{L} = \frac{1}{N^2} \sum_{i,j} h\bigl(\psi(s_i, s_j) - \psi(t_i, t_j)\bigr),
        \quad \psi(a_i, a_j) = \frac{\lVert a_i - a_j \rVert_2}{\mu(a)},
        \quad h(x) = \begin{cases} x^2/2 & |x| \le 1 \\ |x| - 1/2 & \text{else} \end{cases}

    with the mean distance :math:`\mu` of two different samples of the batch. The paper sums over
    pairs; the mean, in which a sample and itself count, is that of the authors' code. Samples with
    the same features count in :math:`\mu` with distance 0, as in the paper; the code leaves them
    out. Where all features are the same all distances are 0.

    Args:
        student_features: s, shape (N, ...), flattened to vectors.
        teacher_features: t, shape (N, ...); only N must agree.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the numbers of samples differ.

    Source: Park et al., "Relational Knowledge Distillation", 2019, section 3 (arXiv:1904.05068).

    >>> student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[9.0], [7.0], [3.0]])
    >>> rkd_distance_loss(student, teacher).item()
    0.0
    """
    check_same_samples(student_features, teacher_features)
    return F.smooth_l1_loss(_distances(student_features), _distances(teacher_features))


def rkd_angle_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Huber loss between the cosines of the angles that three samples form, in both networks.

    .. math:: \mathcal{L} = \frac{1}{N^3} \sum_{i,j,k} h\bigl(\cos_{ijk}(s) - \cos_{ijk}(t)\bigr),
        \quad \cos_{ijk}(a) = \frac{(a_i - a_j) \cdot (a_k - a_j)}
        {\lVert a_i - a_j \rVert_2 \, \lVert a_k - a_j \rVert_2}

    with h as in :func:`rkd_distance_loss`. The mean is taken over all triples, as in the authors'
    code, where the paper sums over those of different samples. Where two of the three have the
    same features there is no angle, and the cosine is 0.

    Takes memory for N² (N + D) numbers, with D values per sample: a batch of 512 samples and 512
    values needs 1 GB per copy.

    Args:
        student_features: s, shape (N, ...), flattened to vectors.
        teacher_features: t, shape (N, ...); only N must agree.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the numbers of samples differ.

    Source: Park et al., "Relational Knowledge Distillation", 2019, section 3 (arXiv:1904.05068).

    >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> rkd_angle_loss(corner, 5 * corner.flip(1) + 2).item()
    0.0
    """
    check_same_samples(student_features, teacher_features)
    return F.smooth_l1_loss(_cosines(student_features), _cosines(teacher_features))


def _distances(features: Tensor) -> Tensor:
    """Return distances (N, N), relative to their mean."""
    vectors = float32_at_least(features).flatten(1)
    # From differences, not from inner products: exact for near samples, and 0 where they are equal,
    # with the gradient 0.
    found = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    mean = found.sum() / max(len(found) * (len(found) - 1), 1)
    return found / torch.where(mean > 0, mean, 1.0)


def _cosines(features: Tensor) -> Tensor:
    """Return the cosines (N, N, N) of the angles at the first of three samples."""
    vectors = float32_at_least(features).flatten(1)
    directions = unit(vectors[None] - vectors[:, None])
    return directions @ directions.transpose(1, 2)
