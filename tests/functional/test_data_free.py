"""The losses of a generator that learns from a teacher, against loops over their formulas."""

import math

import pytest
import torch

from kdlit.errors import ConfigError
from kdlit.functional import (
    activation_loss,
    agreement_loss,
    information_entropy_loss,
    one_hot_loss,
)

TEACHER = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [0.2, 0.1, 0.0], [-1.0, 0.0, 4.0]])
STUDENT = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, -1.0, 0.0], [3.0, 0.0, 1.0]])


def probabilities(logits: torch.Tensor) -> list[list[float]]:
    rows = [[math.exp(value) for value in row] for row in logits.tolist()]
    return [[value / sum(row) for value in row] for row in rows]


def test_the_one_hot_loss_is_that_of_the_likeliest_class():
    expected = -sum(math.log(max(row)) for row in probabilities(TEACHER)) / len(TEACHER)
    assert one_hot_loss(TEACHER).item() == pytest.approx(expected, rel=1e-6)


def test_the_activation_loss_is_the_mean_absolute_value():
    values = [abs(value) for row in TEACHER.tolist() for value in row]
    assert activation_loss(TEACHER).item() == pytest.approx(-sum(values) / len(values))
    maps = torch.arange(-4.0, 4.0).reshape(2, 2, 2, 1)
    assert activation_loss(maps).item() == -2.0


def test_the_entropy_is_that_of_the_mean_prediction_and_not_the_mean_entropy():
    columns = zip(*probabilities(TEACHER), strict=True)
    mean = [sum(column) / len(TEACHER) for column in columns]
    expected = sum(share * math.log(share) for share in mean)
    assert information_entropy_loss(TEACHER).item() == pytest.approx(expected, rel=1e-5)


def test_the_agreement_is_the_divergence_with_its_sign_turned():
    pairs = zip(probabilities(TEACHER), probabilities(STUDENT), strict=True)
    jsd = 0.0
    for pair in pairs:
        for p, q in zip(*pair, strict=True):
            jsd += (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q))) / 2
    assert agreement_loss(STUDENT, TEACHER).item() == pytest.approx(-jsd / len(TEACHER), rel=1e-5)
    assert agreement_loss(TEACHER, TEACHER).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        one_hot_loss,
        activation_loss,
        information_entropy_loss,
        lambda logits: agreement_loss(STUDENT.double(), logits),
    ],
)
def test_gradients_reach_the_images(loss):
    logits = TEACHER.double().requires_grad_()
    assert torch.autograd.gradcheck(loss, [logits])


@pytest.mark.parametrize("loss", [one_hot_loss, information_entropy_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_the_extremes(loss, dtype):
    """One class has everything, as with a generator that has collapsed."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, 0.0, -1e4]], dtype=dtype, requires_grad=True)
    value = loss(logits)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [one_hot_loss, information_entropy_loss])
def test_refuses_what_are_no_logits(loss):
    with pytest.raises(ConfigError):
        loss(torch.zeros(3))
