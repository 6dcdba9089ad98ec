import pytest
import torch

from kdlit.errors import ConfigError
from kdlit.functional import factor_loss


def test_the_length_of_factors_does_not_matter():
    torch.manual_seed(0)
    ours, theirs = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    lengths = torch.rand(4, 1, 1, 1) + 0.5
    loss = factor_loss(ours, theirs)
    assert loss > 0.05
    assert factor_loss(ours * lengths, 3 * theirs).item() == pytest.approx(loss.item(), rel=1e-5)


def test_factors_that_are_zero_have_a_finite_gradient():
    ours = torch.zeros(2, 3, 2, 2, requires_grad=True)
    factor_loss(ours, torch.ones(2, 3, 2, 2)).backward()
    assert torch.isfinite(ours.grad).all()


def test_other_shapes_are_refused():
    with pytest.raises(ConfigError, match="must have the same shape"):
        factor_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2))
