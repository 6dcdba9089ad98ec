import pytest
import torch
import torch.nn.functional as F

from kdlit.errors import ConfigError
from kdlit.functional import ofa_loss

STUDENT = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
TEACHER = torch.tensor([[3.0, 1.0, 0.0], [0.5, 0.0, 2.0]])
TARGET = torch.tensor([0, 1])


def test_with_gamma_one_is_the_cross_entropy_with_truth_and_teacher():
    expected = F.cross_entropy(STUDENT, TARGET) + F.cross_entropy(STUDENT, TEACHER.softmax(dim=1))
    assert torch.allclose(ofa_loss(STUDENT, TEACHER, TARGET, gamma=1.0), expected)


def test_gamma_adds_to_the_true_class_alone():
    p, log_q = TEACHER.softmax(dim=1), STUDENT.log_softmax(dim=1)
    sure = torch.stack([p[0, 0], p[1, 1]])
    more = ((1 + sure) ** 2 - (1 + sure)) * -torch.stack([log_q[0, 0], log_q[1, 1]])
    found = ofa_loss(STUDENT, TEACHER, TARGET, 2.0) - ofa_loss(STUDENT, TEACHER, TARGET, 1.0)
    assert found.item() == pytest.approx(more.mean().item(), rel=1e-5)


def test_gamma_adds_more_where_the_teacher_is_sure_of_the_truth():
    def share(sample: int) -> float:
        one = slice(sample, sample + 1)
        losses = [
            ofa_loss(STUDENT[one], TEACHER[one], TARGET[one], gamma).item() for gamma in (3.0, 1.0)
        ]
        return losses[0] / losses[1]

    assert share(0) > 2 > 1.5 > share(1) > 1


def test_the_temperature_is_that_of_both():
    halved = ofa_loss(STUDENT / 2, TEACHER / 2, TARGET, 1.5)
    assert torch.allclose(ofa_loss(STUDENT, TEACHER, TARGET, 1.5, temperature=2.0), halved)


def test_other_numbers_of_classes_are_refused():
    with pytest.raises(ConfigError, match=r"\(2, 3\) for the student and \(2, 4\)"):
        ofa_loss(STUDENT, torch.zeros(2, 4), TARGET, 1.0)
