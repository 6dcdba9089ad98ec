import pytest
import torch

from kdlit.errors import ConfigError
from kdlit.functional import hierarchical_context_loss


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
def test_equals_torchdistill_at_every_size(side):
    from torchdistill.losses.mid_level import HierarchicalContextLoss

    torch.manual_seed(side)
    ours, theirs = torch.randn(2, 3, side, side), torch.randn(2, 3, side, side)
    reference = HierarchicalContextLoss("s", "output", "t", "output")
    expected = reference({"s": {"output": (ours, None)}}, {"t": {"output": theirs}})
    found = hierarchical_context_loss(ours, theirs)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_difference_that_averages_out_counts_less_than_one_that_stays():
    zero, constant = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2) * 2.0 - 1
    coarse = hierarchical_context_loss(zero, constant).item()
    assert coarse == pytest.approx(1)
    assert hierarchical_context_loss(zero, board[None, None]).item() == pytest.approx(8 / 15)


def test_vectors_and_other_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"student's layer must give feature maps .* \(2, 3\)"):
        hierarchical_context_loss(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="must have the same shape"):
        hierarchical_context_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2))
