"""Variational information distillation: the student predicts the teacher, and how surely."""

from torch import Tensor

from kdlit.functional.checks import check_same_features
from kdlit.functional.precision import float32_at_least


def vid_loss(mean: Tensor, variance: Tensor, teacher_features: Tensor) -> Tensor:
    r"""Negative log-likelihood of the teacher's features under a Gaussian the student predicts.

    .. math:: \mathcal{L} = \frac{1}{N D} \sum_{n,d} \frac12 \left(
        \frac{(t_{nd} - \mu_{nd})^2}{\sigma_d^2} + \log \sigma_d^2 \right)

    To minimise it is to raise a lower bound of the mutual information between the features of
    teacher and student. The constant :math:`\frac12 \log 2\pi` is left out, and the mean over
    features is taken where the paper sums, as in the authors' code. The loss is negative where the
    variance is small and the prediction good.

    Args:
        mean: mu, what the student predicts, shape (N, ...) with D values per sample.
        variance: sigma², > 0, of a shape that broadcasts to the mean's.
        teacher_features: t, of the mean's shape.

    Returns:
        A scalar of either sign.

    Raises:
        ConfigError: if mean and teacher features differ in shape.

    Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer", 2019,
    section 2 (arXiv:1904.05835).

    >>> import torch
    >>> mean, teacher = torch.zeros(2, 3), torch.full((2, 3), 2.0)
    >>> vid_loss(mean, torch.ones(3), teacher).item()
    2.0
    >>> round(vid_loss(mean, torch.full((3,), 4.0), teacher).item(), 4)
    1.1931
    """
    check_same_features(mean, teacher_features)
    mean, spread = float32_at_least(mean), float32_at_least(variance)
    error = float32_at_least(teacher_features) - mean
    return (error.square() / spread + spread.log()).mean() / 2
