"""Biases by search over all that can make a difference, and by the share of decisions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlit.errors import ConfigError
from kdlit.evaluation.class_bias import (
    bias_for_share,
    bias_of_fewest_errors,
    errors_with_bias,
    margins,
)


def _errors(logits, classes, target, bias):
    biased = logits.clone()
    biased[:, classes] += bias
    return int(biased.argmax(1).ne(target).sum())


@given(seed=st.integers(0, 10_000), classes=st.sampled_from([[0], [2], [1, 3], [0, 1, 2]]))
def test_no_bias_has_fewer_errors(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, 4, generator=generator)
    target = torch.randint(0, 4, (40,), generator=generator)
    bias = bias_of_fewest_errors(logits, classes, target)
    ours = errors_with_bias(logits, classes, target, bias)
    tried = [_errors(logits, classes, target, b) for b in torch.linspace(-8, 8, 1601).tolist()]
    assert ours["errors"] == _errors(logits, classes, target, bias) <= min(tried)
    assert ours["accuracy"] == pytest.approx(1 - ours["errors"] / 40)


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.95))
def test_the_share_of_decisions_is_met_without_labels(seed, share):
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(seed))
    bias = bias_for_share(logits, [1, 4], share)
    biased = logits.clone()
    biased[:, [1, 4]] += bias
    decided = torch.isin(biased.argmax(1), torch.tensor([1, 4])).double().mean()
    assert abs(decided - share) <= 1 / 200


def test_errors_within_the_classes_are_counted():
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.5], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    target = torch.tensor([2, 2, 0, 2])
    found = errors_with_bias(logits, [2], target, 0.0)
    assert (found["errors"], found["errors_in_classes"], found["samples_in_classes"]) == (2, 2, 3)
    assert errors_with_bias(logits, [2], target, 0.75)["errors"] == 1
    assert margins(logits, [2]).tolist() == [1.0, 0.5, 2.0, -3.0]


@pytest.mark.parametrize("classes", [[], [0, 1, 2], [3], [-1]])
def test_refuses_classes_that_leave_none_or_are_none(classes):
    with pytest.raises(ConfigError, match="classes"):
        margins(torch.zeros(2, 3), classes)


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_refuses_a_share_that_needs_no_bias(share):
    with pytest.raises(ConfigError, match="share"):
        bias_for_share(torch.zeros(4, 3), [1], share)
