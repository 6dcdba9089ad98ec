import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlit.data.subsets import stratified_choice
from kdlit.errors import ConfigError


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 100), st.integers(0, 9))
def test_classes_keep_their_share(counts, percent, seed):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    size = len(labels) * percent // 100
    chosen = stratified_choice(labels, size, seed)
    assert len(chosen) == size
    assert len(chosen.unique()) == size
    assert (chosen.diff() > 0).all()
    for label, count in enumerate(counts):
        share = count * size / len(labels)
        assert abs(int((labels[chosen] == label).sum()) - share) < 1


def test_depends_on_the_seed_alone():
    labels = torch.randint(0, 10, (1000,))
    first = stratified_choice(labels, 100, 0)
    torch.manual_seed(123)
    assert torch.equal(first, stratified_choice(labels, 100, 0))
    assert not torch.equal(first, stratified_choice(labels, 100, 1))


def test_refuses_more_than_there_are():
    with pytest.raises(ConfigError, match="cannot choose 11 of 10"):
        stratified_choice(torch.zeros(10), 11, 0)
