import math

import pytest
import torch

from kdlit.evaluation.comparison import compare, mcnemar
from kdlit.functional import kl_divergence

CLASSES = 3


def test_mcnemar_as_published():
    """Fagerland, Lydersen, Laake, "The McNemar test for binary matched-pairs data", 2013.

    Their example of airway hyper-responsiveness has 1 and 7 discordant pairs.
    """
    assert mcnemar(1, 7) == pytest.approx(0.070, abs=5e-4)


@pytest.mark.parametrize(("one", "other"), [(1, 7), (7, 1), (5, 5), (0, 9), (30, 12), (0, 1)])
def test_mcnemar_by_counting(one, other):
    both, least = one + other, min(one, other)
    tail = sum(math.comb(both, k) for k in range(least + 1)) / 2**both
    assert mcnemar(one, other) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_mcnemar_of_equal_networks():
    assert mcnemar(0, 0) == 1.0


def test_the_table_by_hand():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(300, CLASSES, generator=generator) for _ in range(2))
    target = torch.randint(0, CLASSES, (300,), generator=generator)
    found = compare(student, teacher, target)
    triples = [
        (int(s.argmax()), int(t.argmax()), int(y))
        for s, t, y in zip(student, teacher, target, strict=True)
    ]
    expected = {
        "agreement": pytest.approx(sum(s == t for s, t, _ in triples) / 300),
        "kl_from_teacher": pytest.approx(float(kl_divergence(student, teacher)), rel=1e-5),
        "both_right": sum(s == y and t == y for s, t, y in triples),
        "only_teacher_right": sum(s != y and t == y for s, t, y in triples),
        "only_student_right": sum(s == y and t != y for s, t, y in triples),
        "both_wrong": sum(s != y and t != y for s, t, y in triples),
        "same_error": sum(s == t != y for s, t, y in triples),
    }
    errors = sum(s != y for s, _, y in triples)
    assert found.pop("shared_errors") == pytest.approx(expected["both_wrong"] / errors)
    only = (expected["only_teacher_right"], expected["only_student_right"])
    assert found.pop("mcnemar") == mcnemar(*only)
    assert found == expected
    assert all(found.values())


def test_a_student_without_errors():
    found = compare(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
    assert (found["shared_errors"], found["mcnemar"], found["both_right"]) == (None, 1.0, 2)
