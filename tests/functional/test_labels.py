import math

import pytest
import torch
import torch.nn.functional as F

from kdlit.functional import hard_label_loss, kl_divergence, soft_label_loss, truth_loss

STUDENT = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
TEACHER = torch.tensor([[3.0, 1.0, 0.0], [0.5, 0.0, 2.0]])


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_soft_is_the_divergence_times_the_squared_temperature(temperature):
    expected = temperature**2 * kl_divergence(STUDENT, TEACHER, temperature)
    assert soft_label_loss(STUDENT, TEACHER, temperature) == expected


def test_soft_has_the_gradient_of_the_cross_entropy_with_soft_targets():
    temperature = 3.0
    ours, theirs = (STUDENT.clone().requires_grad_() for _ in range(2))
    soft_label_loss(ours, TEACHER, temperature).backward()
    targets = torch.softmax(TEACHER / temperature, dim=1)
    (temperature**2 * F.cross_entropy(theirs / temperature, targets)).backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_soft_keeps_the_size_of_the_gradient_as_the_temperature_grows():
    """At high temperature the gradient tends to (z - t) / (N C), centred: no power of T is left."""

    def gradient(temperature: float) -> torch.Tensor:
        student = STUDENT.clone().requires_grad_()
        soft_label_loss(student, TEACHER, temperature).backward()
        return student.grad

    centred = [values - values.mean(dim=1, keepdim=True) for values in (STUDENT, TEACHER)]
    limit = (centred[0] - centred[1]) / STUDENT.numel()
    assert torch.allclose(gradient(100.0), limit, atol=2e-3)
    assert torch.allclose(gradient(1000.0), limit, atol=2e-3)


def test_hard_is_the_cross_entropy_with_the_teachers_decision():
    expected = -sum(
        math.log(math.exp(z[label]) / sum(math.exp(value) for value in z))
        for z, label in zip(STUDENT.tolist(), (0, 2), strict=True)
    )
    assert hard_label_loss(STUDENT, TEACHER).item() == pytest.approx(expected / 2, rel=1e-6)


def test_truth_with_smoothing_is_the_cross_entropy_with_a_mixed_target():
    target, epsilon = torch.tensor([2, 0]), 0.3
    mixed = (1 - epsilon) * F.one_hot(target, 3) + epsilon / 3
    expected = -(mixed * torch.log_softmax(STUDENT, dim=1)).sum(dim=1).mean()
    assert torch.allclose(truth_loss(STUDENT, target, epsilon), expected)


def test_soft_and_truth_are_what_torchdistill_makes_of_them():
    """There alpha weighs the cross-entropy, and T² is there as long as alpha is not 0."""
    from torchdistill.losses.mid_level import KDLoss

    target, alpha = torch.tensor([1, 2]), 0.4
    theirs = KDLoss(
        student_module_path=".", student_module_io="output",
        teacher_module_path=".", teacher_module_io="output",
        temperature=3.0, alpha=alpha, reduction="batchmean",
    )  # fmt: skip
    expected = theirs({".": {"output": STUDENT}}, {".": {"output": TEACHER}}, target)
    soft, truth = soft_label_loss(STUDENT, TEACHER, 3.0), truth_loss(STUDENT, target)
    assert torch.allclose(alpha * truth + (1 - alpha) * soft, expected)


LOSSES = {
    "soft": lambda z: soft_label_loss(z, TEACHER.to(z.dtype), 4.0),
    "hard": lambda z: hard_label_loss(z, TEACHER.to(z.dtype)),
    "truth": lambda z: truth_loss(z, torch.tensor([0, 1])),
    "smooth": lambda z: truth_loss(z, torch.tensor([0, 1]), 0.1),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradient(loss):
    assert torch.autograd.gradcheck(loss, STUDENT.double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_is_computed_in_float32_and_finite_at_the_extremes(loss, dtype):
    value = loss(torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]], dtype=dtype))
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
