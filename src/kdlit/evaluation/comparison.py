"""A student beside its teacher: where they decide alike, and whose errors are whose."""

from typing import Any

from scipy.stats import binomtest
from torch import Tensor

from kdlit.metrics import ClassifierMetrics


def mcnemar(only_one: int, only_other: int) -> float:
    r"""Return the p-value of McNemar's exact test of two classifiers on the same samples.

    Only samples that exactly one of them gets right tell which is better. Were they equally good,
    the number n10 that only the one gets right would be binomial with one half:

    .. math:: p = \Pr\bigl[|X - n/2| \ge |n_{10} - n/2|\bigr], \quad
              X \sim \mathrm{Binomial}(n, 1/2), \quad n = n_{10} + n_{01}

    Args:
        only_one: samples that the one gets right and the other wrong.
        only_other: samples that the other gets right and the one wrong.

    Returns:
        The two-sided p-value; 1 where there is no such sample.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions
    or percentages", 1947; exact as in Dietterich, "Approximate Statistical Tests for Comparing
    Supervised Classification Learning Algorithms", 1998, discusses it.

    >>> mcnemar(1, 9) == 2 * (1 + 10) / 2**10
    True
    """
    both = only_one + only_other
    return float(binomtest(only_one, both).pvalue) if both else 1.0


def compare(student: Tensor, teacher: Tensor, target: Tensor) -> dict[str, Any]:
    """Return how a student's answers stand to its teacher's, JSON-like.

    Args:
        student: logits, shape (N, C), on the CPU.
        teacher: logits, likewise.
        target: class indices, shape (N,).

    Returns:
        `agreement` and `kl_from_teacher` (nats) as in :mod:`kdlit.metrics`; the numbers of samples
        that are `both_right`, `both_wrong`, `only_teacher_right`, `only_student_right`;
        `same_error`, those of `both_wrong` that both take for the same class;
        `shared_errors`, the share of the student's errors that the teacher makes, too (None
        without errors); `mcnemar`, the p-value of :func:`mcnemar`.

    >>> import torch
    >>> student = torch.eye(3)[[0, 1, 2, 2]]
    >>> found = compare(student, torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 2, 2, 1]))
    >>> found["both_right"], found["both_wrong"], found["same_error"], found["only_student_right"]
    (1, 2, 2, 1)
    """
    metrics = ClassifierMetrics()
    metrics.update(student, target, teacher)
    found = metrics.compute()
    ours, theirs = student.argmax(dim=-1), teacher.argmax(dim=-1)
    right, taught = ours == target, theirs == target
    table = {
        "both_right": int((right & taught).sum()),
        "only_teacher_right": int((~right & taught).sum()),
        "only_student_right": int((right & ~taught).sum()),
        "both_wrong": int((~right & ~taught).sum()),
    }
    errors = int((~right).sum())
    return {
        "agreement": found["agreement"],
        "kl_from_teacher": found["kl_from_teacher"],
        **table,
        "same_error": int((~right & (ours == theirs)).sum()),
        "shared_errors": table["both_wrong"] / errors if errors else None,
        "mcnemar": mcnemar(table["only_teacher_right"], table["only_student_right"]),
    }
