"""What a generator of images is asked for by a teacher whose data nobody has."""

import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_same_logits
from kdlit.functional.divergence import jensen_shannon_divergence
from kdlit.functional.precision import float32_at_least


def one_hot_loss(teacher_logits: Tensor) -> Tensor:
    r"""Images of which the teacher is sure: its decision as the label of its own answer.

    .. math:: \mathcal{L}_\text{oh} = -\frac1N \sum_n \log \mathrm{softmax}(t_n)_{\hat y_n},
        \quad \hat y_n = \arg\max_c t_{nc}

    Args:
        teacher_logits: t, shape (N, C), with the gradient of the images.

    Returns:
        A scalar in [0, ln C], in nats, averaged over the batch.

    Raises:
        ConfigError: if the shape is not (N, C).

    Source: Chen et al., "Data-Free Learning of Student Networks", 2019, equation 3
    (arXiv:1904.01186).

    >>> import torch
    >>> round(one_hot_loss(torch.tensor([[0.0, 0.0], [40.0, 0.0]])).item(), 4)
    0.3466
    """
    check_same_logits(teacher_logits, teacher_logits)
    return F.cross_entropy(float32_at_least(teacher_logits), teacher_logits.argmax(dim=-1))


def activation_loss(features: Tensor) -> Tensor:
    r"""Images that excite the teacher: the mean absolute value of its features, negated.

    .. math:: \mathcal{L}_\text{a} = -\frac1{ND} \sum_{n,d} \lvert f_{nd} \rvert

    The paper sums over the D features of a sample; the authors' code takes their mean, as here.

    Args:
        features: f, what a layer before the classifier gives, shape (N, ...).

    Returns:
        A scalar <= 0.

    Source: Chen et al., "Data-Free Learning of Student Networks", 2019, equation 4
    (arXiv:1904.01186).

    >>> import torch
    >>> activation_loss(torch.tensor([[1.0, -3.0]])).item()
    -2.0
    """
    return -float32_at_least(features).abs().mean()


def information_entropy_loss(teacher_logits: Tensor) -> Tensor:
    r"""Images of all classes alike: the entropy of the teacher's mean prediction, negated.

    .. math:: \mathcal{L}_\text{ie} = \sum_c \bar p_c \ln \bar p_c, \quad
        \bar p = \frac1N \sum_n \mathrm{softmax}(t_n)

    The authors' code has the logarithm to base 10: their weight of 5 is here one of 5 / ln 10.

    Args:
        teacher_logits: t, shape (N, C), with the gradient of the images.

    Returns:
        A scalar in [-ln C, 0], in nats.

    Raises:
        ConfigError: if the shape is not (N, C).

    Source: Chen et al., "Data-Free Learning of Student Networks", 2019, equation 5
    (arXiv:1904.01186).

    >>> import torch
    >>> round(information_entropy_loss(torch.tensor([[40.0, 0.0], [0.0, 40.0]])).item(), 4)
    -0.6931
    """
    check_same_logits(teacher_logits, teacher_logits)
    log_p = F.log_softmax(float32_at_least(teacher_logits), dim=-1)
    # In log space, so that a class of which nothing is left has a finite logarithm.
    log_mean = log_p.logsumexp(dim=0) - log_p.new_tensor(len(log_p)).log()
    return (log_mean.exp() * log_mean).sum()


def agreement_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Images on which the student still errs: its divergence from the teacher, negated.

    .. math:: \mathcal{L}_\text{adv} = -\mathrm{JSD}\bigl(\mathrm{softmax}(t) \,\|\,
        \mathrm{softmax}(z)\bigr)

    It is bounded, so that no image on which the student errs outweighs all others. The source adds
    1, which changes no gradient.

    Args:
        student_logits: z, shape (N, C), with the gradient of the images.
        teacher_logits: t, shape (N, C), likewise.

    Returns:
        A scalar in [-ln 2, 0], in nats, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", 2020,
    section 3.3, the competition term (arXiv:1912.08795).

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 40.0]]), torch.tensor([[40.0, 0.0]])
    >>> round(agreement_loss(student, teacher).item(), 4)
    -0.6931
    """
    return -jensen_shannon_divergence(student_logits, teacher_logits)
