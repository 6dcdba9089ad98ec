"""What the table of objectives does not show of the losses on logits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlit.errors import ConfigError
from kdlit.functional import (
    dist_losses,
    dkd_losses,
    jensen_shannon_divergence,
    kl_divergence,
    logit_mse_loss,
    nkd_losses,
    reverse_kl_loss,
    soft_label_loss,
    wsld_loss,
    wsld_weights,
)

seeds = st.integers(0, 10_000)
temperatures = st.floats(0.5, 20)


def draw(seed: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(6, 5, generator=generator) for _ in range(2))
    return student.double(), teacher.double(), torch.randint(5, (6,), generator=generator)


@given(seeds, temperatures)
def test_the_reverse_divergence_exchanges_the_two(seed, temperature):
    student, teacher, _ = draw(seed)
    assert torch.equal(
        reverse_kl_loss(student, teacher, temperature),
        soft_label_loss(teacher, student, temperature),
    )


@given(seeds, st.floats(0.01, 0.99))
def test_jensen_shannon_is_bounded_and_mirrored(seed, beta):
    student, teacher, _ = draw(seed, scale=50.0)
    value = jensen_shannon_divergence(student, teacher, beta)
    assert -1e-9 <= value <= math.log(2) + 1e-9
    assert torch.allclose(value, jensen_shannon_divergence(teacher, student, 1 - beta))


def test_jensen_shannon_has_both_directions_at_its_ends_and_tends_to_them():
    student, teacher, _ = draw(0)
    for end, near, limit in (
        (0, 1e-6, kl_divergence(student, teacher)),
        (1, 1 - 1e-6, kl_divergence(teacher, student)),
    ):
        assert torch.equal(jensen_shannon_divergence(student, teacher, end), limit)
        close = jensen_shannon_divergence(student, teacher, near) / (near * (1 - near))
        assert torch.allclose(close, limit, rtol=1e-3)


def test_soft_labels_tend_to_half_the_squared_error_of_centred_logits():
    student, teacher, _ = draw(1)
    student, teacher = (z - z.mean(dim=1, keepdim=True) for z in (student, teacher))
    half = logit_mse_loss(student, teacher) / 2
    assert torch.allclose(soft_label_loss(student, teacher, 1e4), half, rtol=1e-3)


@given(seeds, temperatures)
def test_the_two_parts_of_dkd_make_soft_labels(seed, temperature):
    """One sample at a time, since the second part is weighted by each sample's 1 - p_y."""
    student, teacher, target = draw(seed)
    for n in range(len(target)):
        one = slice(n, n + 1)
        tckd, nckd = dkd_losses(student[one], teacher[one], target[one], temperature)
        rest = 1 - torch.softmax(teacher[n] / temperature, dim=0)[target[n]]
        whole = soft_label_loss(student[one], teacher[one], temperature)
        assert torch.allclose(tckd + rest * nckd, whole, atol=1e-9)


def test_dkd_is_finite_and_right_where_the_logarithm_of_a_softmax_is_not():
    student = torch.tensor([[0.0, 400.0, 0.0]], requires_grad=True)
    teacher, target = torch.tensor([[400.0, 0.0, 1.0]]), torch.tensor([0])
    assert torch.softmax(student, dim=1).log().isinf().any()
    tckd, nckd = dkd_losses(student, teacher, target, 1.0)
    (tckd + nckd).backward()
    assert tckd.item() == pytest.approx(400.0)
    # Beside the true class the student is sure of the second; the teacher of neither.
    third = 1 / (1 + math.exp(-1.0))
    entropy = -third * math.log(third) - (1 - third) * math.log(1 - third)
    assert nckd.item() == pytest.approx(400 * third - entropy, rel=1e-5)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("losses", [dkd_losses, nkd_losses])
def test_two_classes_are_refused(losses):
    with pytest.raises(ConfigError, match="needs three classes or more, got 2"):
        losses(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), 1.0)


@given(seeds, st.floats(0.1, 10))
def test_dist_asks_for_relations_and_not_for_values(seed, scale):
    """Probabilities that are a sample-wise or class-wise affine image cost nothing."""
    _, teacher, _ = draw(seed, scale=1.0)
    p = torch.softmax(teacher, dim=1)
    share = scale / (10 + scale)
    flatter = share * p + (1 - share) / p.shape[1]
    inter, intra = dist_losses(flatter.log(), teacher, 1.0)
    assert inter.item() == pytest.approx(0, abs=1e-6)
    assert intra.item() == pytest.approx(0, abs=1e-6)


def test_dist_of_a_constant_prediction_has_no_correlation():
    student = torch.zeros(3, 4, requires_grad=True)
    inter, intra = dist_losses(student, draw(0)[1][:3, :4].float(), 2.0)
    assert (inter.item(), intra.item()) == (4.0, 4.0)
    (inter + intra).backward()
    assert torch.isfinite(student.grad).all()


def test_wsld_weighs_each_sample_and_lets_no_gradient_through_the_weights():
    student, teacher, target = draw(2)
    student.requires_grad_()
    weights = wsld_weights(student, teacher, target)
    assert not weights.requires_grad
    found = torch.autograd.grad(wsld_loss(student, teacher, weights, 2.0), student)[0]
    for n in range(len(target)):
        one = slice(n, n + 1)
        soft = soft_label_loss(student[one], teacher[one], 2.0)
        expected = torch.autograd.grad(soft, student)[0][n] * weights[n] / len(target)
        assert torch.allclose(found[n], expected)


def test_wsld_weights_when_the_teacher_is_perfectly_sure():
    sure, target = torch.tensor([[1e4, 0.0, 0.0]]), torch.tensor([0])
    assert wsld_weights(sure, sure, target).item() == 0
    assert wsld_weights(torch.zeros(1, 3), sure, target).item() == 1
