import pytest
import torch

from kdlit.errors import ConfigError
from kdlit.functional import vid_loss


def test_the_best_variance_is_the_mean_squared_error():
    torch.manual_seed(0)
    mean, teacher = torch.randn(64, 3), torch.randn(64, 3)
    error = (mean - teacher).square().mean(dim=0).requires_grad_()
    vid_loss(mean, error, teacher).backward()
    assert torch.allclose(error.grad, torch.zeros(3), atol=1e-6)


def test_is_negative_for_a_good_and_sure_prediction():
    assert vid_loss(torch.zeros(2, 3), torch.full((3,), 0.01), torch.zeros(2, 3)) < 0


def test_is_the_normal_distributions_up_to_a_constant():
    torch.manual_seed(0)
    mean, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    variance = torch.rand(3, 1, 1) + 0.1
    expected = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(teacher).mean()
    constant = torch.tensor(2 * torch.pi).log() / 2
    assert vid_loss(mean, variance, teacher).item() == pytest.approx(
        (expected - constant).item(), rel=1e-5
    )


def test_other_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"same shape, got \(2, 3\) .* and \(2, 4\)"):
        vid_loss(torch.zeros(2, 3), torch.ones(3), torch.zeros(2, 4))
