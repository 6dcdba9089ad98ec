"""The bound on incoming weights, under every kind of optimizer."""

from functools import partial

import pytest
import torch
from torch import nn

from kdlit.errors import ConfigError
from kdlit.models import MLP
from kdlit.optimizers import with_max_norm


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adam, partial(torch.optim.AdamW, fused=True)]
)
def test_each_unit_is_bounded_after_every_step_and_the_direction_stays(optimizer):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    free = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    free.load_state_dict(network.state_dict())
    x, limit = torch.randn(8, 1, 4, 4), 0.4
    bounded = with_max_norm(network.parameters(), optimizer, limit, lr=0.05)
    plain = optimizer(free.parameters(), lr=0.05)
    for net, made in ((network, bounded), (free, plain)):
        net(x).square().sum().backward()
        made.step()
    for ours, theirs in zip(network.parameters(), free.parameters(), strict=True):
        if ours.ndim == 1:
            assert torch.equal(ours, theirs)
            continue
        for row, unbounded in zip(ours.flatten(1), theirs.flatten(1), strict=True):
            expected = unbounded * min(1.0, limit / unbounded.norm().item())
            torch.testing.assert_close(row, expected)
    assert any(row.norm() > limit for row in free[2].weight)


def test_a_bound_that_is_not_reached_changes_nothing():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros(2, 3)
    with_max_norm(layer.parameters(), torch.optim.SGD, 100.0, lr=0.1).step()
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan")])
def test_refuses_what_bounds_nothing(bound):
    with pytest.raises(ConfigError, match="max_norm"):
        with_max_norm(nn.Linear(1, 1).parameters(), torch.optim.SGD, bound, lr=0.1)


def test_dropout_of_the_input_is_of_training_alone():
    torch.manual_seed(0)
    network = MLP(4, [], 2, input_dropout=0.5)
    x = torch.ones(1000, 4)
    dropped = network.input_dropout(x)
    assert 0.4 < dropped.eq(0).double().mean() < 0.6
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    network.eval()
    assert torch.equal(network(x), network.classifier(x))
    assert [name for name, _ in MLP(4, [3], 2).named_children()] == [
        "flatten", "hidden1", "classifier"
    ]  # fmt: skip
