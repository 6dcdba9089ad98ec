"""The label strategies' losses: what a student is asked to imitate, one function each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlit.functional.checks import check_classes, check_same_logits
from kdlit.functional.divergence import jensen_shannon_divergence, kl_divergence
from kdlit.functional.precision import float32_at_least
from kdlit.functional.temperature import rescaled


def soft_label_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""Soft labels: the teacher's softened distribution as the target.

    .. math:: \mathcal{L}_\text{soft} = T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(t/T) \,\|\,
        \mathrm{softmax}(z/T)\bigr)

    The factor T² keeps the size of the gradient as T grows, since each of the two softmaxes
    shrinks it by 1/T. The KL divergence has the same gradient for the student as the
    cross-entropy with soft targets, and is zero when the student agrees with the teacher.

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
    return rescaled(kl_divergence(student_logits, teacher_logits, temperature), temperature)


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
    check_same_logits(student_logits, teacher_logits)
    return F.cross_entropy(float32_at_least(student_logits), teacher_logits.argmax(dim=-1))


def reverse_kl_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""The divergence the other way round: the student keeps to what the teacher thinks likely.

    .. math:: \mathcal{L}_\text{reverse} = T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(z/T) \,\|\,
        \mathrm{softmax}(t/T)\bigr)

    A student that cannot follow the teacher everywhere spreads under the forward divergence and
    chooses some of the teacher's modes under this one. The source has no T²; it stands here as in
    :func:`soft_label_loss`, and is 1 at T = 1.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        temperature: T > 0.

    Returns:
        A scalar >= 0, in nats, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", 2024
    (arXiv:2306.08543), which minimises it over sequences; here it is that of one distribution.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> round(reverse_kl_loss(student, teacher, temperature=1.0).item(), 4)
    0.4338
    """
    return rescaled(kl_divergence(teacher_logits, student_logits, temperature), temperature)


def jensen_shannon_loss(
    student_logits: Tensor, teacher_logits: Tensor, beta: float, temperature: float
) -> Tensor:
    r"""The generalised Jensen-Shannon divergence between student and teacher.

    .. math:: \mathcal{L}_\text{js} = T^2 \, \mathrm{JSD}_\beta\bigl(\mathrm{softmax}(t/T)
        \,\|\, \mathrm{softmax}(z/T)\bigr)

    with :func:`kdlit.functional.jensen_shannon_divergence`. The source has no T²; it stands here
    as in :func:`soft_label_loss`, and is 1 at T = 1.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.
        beta: weight of the teacher in the mixture, in [0, 1].
        temperature: T > 0.

    Returns:
        A scalar >= 0, in nats, averaged over the batch.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Agarwal et al., "On-Policy Distillation of Language Models: Learning from
    Self-Generated Mistakes", 2024, section 2 (arXiv:2306.13649).

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> round(jensen_shannon_loss(student, teacher, beta=0.5, temperature=1.0).item(), 4)
    0.0895
    """
    divergence = jensen_shannon_divergence(student_logits, teacher_logits, beta, temperature)
    return rescaled(divergence, temperature)


def logit_mse_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""The student's logits are regressed onto the teacher's.

    .. math:: \mathcal{L}_\text{mse} = \frac{1}{NC} \sum_n \lVert z_n - t_n \rVert_2^2

    Both sources print the squared norm, the sum over classes (the first with the factor 1/2); the
    second one's code takes the mean over classes, as here. For logits that sum to 0
    :func:`soft_label_loss` tends to half of this loss as T grows.

    Args:
        student_logits: z, shape (N, C).
        teacher_logits: t, shape (N, C); no gradient is needed.

    Returns:
        A scalar >= 0.

    Raises:
        ConfigError: if the shapes differ or are not (N, C).

    Source: Ba, Caruana, "Do Deep Nets Really Need to be Deep?", 2014 (arXiv:1312.6184); Kim et
    al., "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge
    Distillation", 2021 (arXiv:2105.08919).

    >>> import torch
    >>> logit_mse_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])).item()
    2.0
    """
    check_same_logits(student_logits, teacher_logits)
    return F.mse_loss(float32_at_least(student_logits), float32_at_least(teacher_logits))


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

    Raises:
        ConfigError: if there is not one class index for each sample.

    Source of the smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer
    Vision", 2016, section 7 (arXiv:1512.00567).

    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> round(truth_loss(logits, target).item(), 4)
    0.1269
    >>> round(truth_loss(logits, target, label_smoothing=0.1).item(), 4)
    0.2269
    """
    check_classes(student_logits, target)
    return F.cross_entropy(
        float32_at_least(student_logits), target.to(torch.long), label_smoothing=label_smoothing
    )
