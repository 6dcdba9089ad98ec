"""The label strategies' losses: what a student is asked to imitate, one function each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.divergence import check_same_shape, float32_at_least, kl_divergence


def soft_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""Soft labels: the teacher's softened distribution as the target.

    .. math:: \mathcal{L}_\text{soft} = T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(t/T) \,\|\,
        \mathrm{softmax}(z/T)\bigr)

    The factor T² keeps the size of the gradient as T grows, since each of the two softmaxes
    shrinks it by 1/T. It stands in this function and nowhere else. The KL divergence has the
    same gradient for the student as the cross-entropy with soft targets, and is zero when the
    student agrees with the teacher.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        temperature: T > 0.

    Returns:
        A scalar >= 0, in nats, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2
    (arXiv:1503.02531).

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> round(soft_label_loss(student, teacher, temperature=4.0).item(), 4)
    0.4848
    >>> round(soft_label_loss(teacher, teacher, temperature=4.0).item(), 4)
    0.0
    """
    return temperature**2 * kl_divergence(student_logits, teacher_logits, temperature)


def hard_label_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Hard labels: the teacher's decision as the label.

    .. math:: \mathcal{L}_\text{hard} = -\frac1N \sum_n \log \mathrm{softmax}(z_n)_{\hat y_n},
        \quad \hat y_n = \arg\max_c t_{nc}

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C).

    Returns:
        A scalar >= 0, in nats, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Touvron et al., "Training data-efficient image transformers & distillation through
    attention", 2021, equation 3 (arXiv:2012.12877).

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> round(hard_label_loss(student, teacher).item(), 4)
    0.6931
    """
    check_same_shape(student_logits, teacher_logits)
    return F.cross_entropy(float32_at_least(student_logits), teacher_logits.argmax(dim=-1))


def truth_loss(student_logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    r"""Ground truth, optionally smoothed: the cross-entropy with the data set's own labels.

    .. math:: \mathcal{L} = -\frac1N \sum_n \sum_c
        \Bigl((1-\epsilon)\,[c = y_n] + \frac{\epsilon}{C}\Bigr) \log \mathrm{softmax}(z_n)_c

    Args:
        student_logits: z, shape (N, C).
        target: y, integer class indices, shape (N,).
        label_smoothing: epsilon in [0, 1); 0 is the plain cross-entropy.

    Returns:
        A scalar >= 0, in nats, averaged over the batch.

    Source of the smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer
    Vision", 2016, section 7 (arXiv:1512.00567).

    >>> import torch
    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> round(truth_loss(logits, target).item(), 4)
    0.1269
    >>> round(truth_loss(logits, target, label_smoothing=0.1).item(), 4)
    0.2269
    """
    return F.cross_entropy(
        float32_at_least(student_logits), target.to(torch.long), label_smoothing=label_smoothing
    )
