import pytest
import torch

from kdlit.errors import ConfigError
from kdlit.functional import bounded_regression_loss, regression_truth_loss

Z = torch.tensor([[1.0], [2.0], [5.0]])
Y = torch.tensor([1.0, 4.0, 2.0])


def test_targets_of_one_output_may_be_a_vector_and_are_not_broadcast():
    expected = (0 + 4 + 9) / 3
    assert regression_truth_loss(Z, Y).item() == pytest.approx(expected)
    assert regression_truth_loss(Z, Y[:, None].double()).item() == pytest.approx(expected)


def test_the_mean_is_over_samples_and_outputs():
    z, y = torch.randn(5, 3), torch.randn(5, 3)
    expected = sum((a - b) ** 2 for a, b in zip(z.flatten(), y.flatten(), strict=True)) / 15
    assert regression_truth_loss(z, y).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 3), (3, 1, 1)])
def test_refuses_a_truth_of_another_shape(shape):
    with pytest.raises(ConfigError, match=r"or \(N,\) where D = 1: got .* predictions \(3, 1\)"):
        regression_truth_loss(Z, torch.zeros(shape))
    with pytest.raises(ConfigError, match=r"got \(3,\) for predictions \(3, 2\)"):
        regression_truth_loss(torch.zeros(3, 2), Y)


@pytest.mark.parametrize(
    ("margin", "expected"),
    # Squared errors: the student's 0, 4 and 9, the teacher's 1, 4 and 1.
    [(0.0, 9 / 3), (0.5, (4 + 9) / 3), (2.0, (0 + 4 + 9) / 3)],
)
def test_only_samples_on_which_the_student_errs_more_than_the_teacher_count(margin, expected):
    teacher = torch.tensor([[2.0], [2.0], [3.0]])
    assert bounded_regression_loss(Z, teacher, Y, margin).item() == pytest.approx(expected)


def test_a_sample_is_bounded_as_a_whole():
    student, teacher = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    found = bounded_regression_loss(student, teacher, torch.zeros(1, 2))
    assert found.item() == pytest.approx(9 / 2)
