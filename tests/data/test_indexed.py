import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kdlit.data import Indexed
from kdlit.errors import ConfigError


class Noisy:
    """Draws from all three generators, as transforms do."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, position):
        noise = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002
        return torch.tensor([position + noise]), position % 2


def draw(data: Indexed, **options) -> torch.Tensor:
    return torch.cat([x for x, _, _ in DataLoader(data, batch_size=2, **options)]).flatten()


def test_samples_get_their_number():
    data = Indexed([(1.0, 0), (2.0, 1)])
    assert data[1] == (2.0, 1, 1)
    assert Indexed([{"x": 1}])[0] == {"x": 1, "index": 0}
    with pytest.raises(ConfigError, match="pairs"):
        Indexed([1.0])[0]


def test_a_view_is_the_same_whenever_and_by_whomever_it_is_drawn():
    data = Indexed(Noisy(), views=2, seed=5)
    first = draw(data)
    torch.manual_seed(99)
    assert torch.equal(first, draw(data))
    assert torch.equal(first, draw(data, num_workers=2))
    data.set_view(1)
    second = draw(data)
    assert not (first == second).any()
    data.set_view(2)
    assert torch.equal(first, draw(data))
    assert not torch.equal(first, draw(Indexed(Noisy(), views=2, seed=6)))
    assert not torch.equal(draw(Indexed(Noisy())), draw(Indexed(Noisy())))


def test_workers_that_live_on_see_the_view_change():
    data = Indexed(Noisy(), views=2)
    loader = DataLoader(data, batch_size=2, num_workers=1, persistent_workers=True)
    first = torch.cat([x for x, _, _ in loader])
    data.set_view(1)
    second = torch.cat([x for x, _, _ in loader])
    assert not (first == second).any()


def test_the_generators_are_left_as_they_were():
    data = Indexed(Noisy(), views=1)
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    data[0]
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected  # noqa: NPY002


def test_the_fingerprint_stands_for_the_data():
    x = torch.arange(40.0).reshape(20, 2)
    same, other = [(row.clone(), 0) for row in x], [(row + 1, 0) for row in x]
    known = Indexed(same).fingerprint()
    assert Indexed([(row.numpy(), 0) for row in x]).fingerprint() == known
    for data in (other, same[:-1], [(row, 1) for row in x]):
        assert Indexed(data).fingerprint() != known
    assert Indexed(same, views=2).fingerprint() != known
    assert Indexed(same, version="2").fingerprint() != known
    noisy = Indexed(Noisy(), views=3)
    noisy.set_view(2)
    assert noisy.fingerprint() == Indexed(Noisy(), views=3).fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": iter([])}, "`dataset` must have a length"),
        ({"dataset": [], "views": 0}, "`views` must be an integer >= 1, got 0"),
        ({"dataset": [], "seed": -1}, "`seed`"),
    ],
)
def test_refuses_bad_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        Indexed(**options)
