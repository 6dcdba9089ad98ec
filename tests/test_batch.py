from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError

X, Y, INDEX = torch.randn(4, 6), torch.tensor([0, 1, 2, 0]), torch.arange(4)


@pytest.mark.parametrize(
    ("raw", "target", "index"),
    [
        (X, None, None),
        ((X,), None, None),
        ((X, Y), Y, None),
        ([X, Y, INDEX], Y, INDEX),
        ({"pixel_values": X, "labels": Y}, Y, None),
        ({"image": X, "label": Y, "index": INDEX}, Y, INDEX),
        ({"x": X, "target": Y, "idx": INDEX}, Y, INDEX),
    ],
)
def test_takes_apart_every_form(raw, target, index):
    batch = Batch.of(raw)
    assert batch.inputs is X
    assert batch.target is target
    assert batch.index is index
    assert Batch.of(batch) is batch


def test_several_inputs_become_keyword_arguments():
    class Adder(nn.Module):
        def forward(self, left, right):
            return left + right

    batch = Batch.of({"left": X, "right": X, "labels": Y})
    assert torch.equal(batch.run(Adder()).logits, 2 * X)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ((X, Y, INDEX, X), "tuple of 4"),
        ("text", "got str"),
        (None, "got NoneType"),
        ({"labels": Y}, "needs inputs"),
    ],
)
def test_refuses_anything_else(raw, message):
    with pytest.raises(ConfigError, match=message):
        Batch.of(raw)


def test_outputs_are_a_tensor_or_have_logits():
    assert Outputs.of(X).logits is X
    assert Outputs.of(SimpleNamespace(logits=X)).logits is X
    with pytest.raises(ConfigError, match="got tuple"):
        Outputs.of((X,))
    with pytest.raises(ConfigError, match=r"shape \(N, C\), got \(4,\)"):
        Outputs.of(Y)
