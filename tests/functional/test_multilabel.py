import pytest
import torch
import torch.nn.functional as F

from kdlit.errors import ConfigError
from kdlit.functional import (
    binary_kl_divergence,
    multilabel_soft_loss,
    multilabel_truth_loss,
    soft_label_loss,
)

generator = torch.Generator().manual_seed(0)
Z, T = (3 * torch.randn(7, 4, generator=generator, dtype=torch.float64) for _ in range(2))
Y = torch.randint(2, (7, 4), generator=generator)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_each_label_is_a_softmax_over_its_logit_and_zero(temperature):
    z, t = (torch.stack([said, torch.zeros_like(said)], dim=-1).flatten(0, 1) for said in (Z, T))
    expected = soft_label_loss(z, t, temperature)
    assert multilabel_soft_loss(Z, T, temperature).item() == pytest.approx(expected.item())


def test_it_is_the_cross_entropy_with_soft_targets_less_the_teachers_entropy():
    soft = torch.sigmoid(T)
    cross = F.binary_cross_entropy(torch.sigmoid(Z), soft)
    entropy = F.binary_cross_entropy(soft, soft)
    assert binary_kl_divergence(Z, T).item() == pytest.approx((cross - entropy).item())


def test_the_gradient_keeps_its_size_as_the_temperature_grows():
    z = Z.clone().requires_grad_()
    sizes = []
    for temperature in (20.0, 200.0):
        (grad,) = torch.autograd.grad(multilabel_soft_loss(z, T, temperature), z)
        sizes.append(grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize("target", [Y, Y.bool(), Y.float(), Y.to(torch.uint8)])
def test_the_truth_may_be_of_any_type(target):
    expected = F.binary_cross_entropy(torch.sigmoid(Z), Y.double())
    assert multilabel_truth_loss(Z, target).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("shape"), [(7,), (7, 3), (7, 4, 1)])
def test_refuses_a_truth_of_another_shape(shape):
    with pytest.raises(ConfigError, match=r"0 or 1 for each, .* for logits \(7, 4\)"):
        multilabel_truth_loss(Z, torch.zeros(shape))
