"""One-for-all distillation: the teacher's distribution with more of it on the true class."""

import torch
from torch import Tensor

from kdlit.functional.checks import check_classes, check_same_logits
from kdlit.functional.precision import float32_at_least


def ofa_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    gamma: float,
    temperature: float = 1.0,
) -> Tensor:
    r"""Cross-entropy with the teacher's distribution, enhanced on the true class y.

    .. math:: \mathcal{L} = -\frac1N \sum_n \Bigl( (1 + p_{n y_n})^\gamma \log q_{n y_n}
        + \sum_{c \ne y_n} p_{nc} \log q_{nc} \Bigr),
        \quad p = \mathrm{softmax}(t/T),\; q = \mathrm{softmax}(z/T)

    With gamma = 1 this is the cross-entropy with the ground truth plus the one with the teacher.
    A larger gamma adds to the true class, and more where the teacher is sure of it. Where the
    teacher is wrong the truth still weighs 1 or more, no less than all other classes together.

    This is the paper's formula. The authors' code differs: it raises the other classes' p to gamma
    too, and leaves the ground truth's own share (the 1) to a cross-entropy on the final logits.

    Args:
        student_logits: z, of a branch or of the student, shape (N, C).
        teacher_logits: t, shape (N, C).
        target: y, integer class indices, shape (N,).
        gamma: the modulating exponent, > 0.
        temperature: T > 0. There is no factor of T².

    Returns:
        A scalar >= 0, in nats, averaged over the batch. It is a cross-entropy: not 0 when student
        and teacher agree.

    Raises:
        ConfigError: if the logits' shapes differ or are not (N, C), or if there is not one class
            index for each sample.

    Source: Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in
    Knowledge Distillation", 2023, section 3 (arXiv:2310.19444).

    >>> z, t = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    >>> y = torch.tensor([0])
    >>> round(ofa_loss(z, t, y, gamma=1.0).item(), 4), round(ofa_loss(z, t, y, gamma=2.0).item(), 4)
    (1.3863, 2.5346)
    """
    check_same_logits(student_logits, teacher_logits)
    check_classes(student_logits, target)
    log_q = torch.log_softmax(float32_at_least(student_logits) / temperature, dim=-1)
    p = torch.softmax(float32_at_least(teacher_logits) / temperature, dim=-1)
    true = target.to(torch.long).unsqueeze(1)
    enhanced = p.scatter(1, true, (1 + p.gather(1, true)) ** gamma)
    return -(enhanced * log_q).sum(dim=-1).mean()
