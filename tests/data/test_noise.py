"""Labels that are wrong on purpose."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlit.data.noise import symmetric_noise

COUNT = 90_000


def noisy(fraction: float, classes: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.tensor(classes)[torch.arange(COUNT) % len(classes)]
    return labels, symmetric_noise(labels, torch.arange(COUNT), classes, fraction, seed)


@pytest.mark.parametrize("classes", [list(range(10)), [2, 3, 8], [0, 9]])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.8])
def test_every_other_class_is_as_frequent(classes, fraction):
    labels, taught = noisy(fraction, classes)
    assert taught.dtype == labels.dtype
    for label in classes:
        found = torch.bincount(taught[labels == label], minlength=10) * len(classes) / COUNT
        for other in range(10):
            share = fraction / (len(classes) - 1) if other in classes else 0.0
            expected = 1 - fraction if other == label else share
            assert abs(float(found[other]) - expected) < 0.02, (label, other)


@given(st.integers(0, 2**40), st.floats(0, 0.999), st.integers(0, 10**7))
def test_a_label_depends_on_nothing_but_the_seed_and_its_index(seed, fraction, index):
    classes = list(range(10))
    alone = symmetric_noise(torch.tensor([4]), torch.tensor([index]), classes, fraction, seed)
    beside = torch.tensor([index + 1, index, 3])
    among = symmetric_noise(torch.tensor([1, 4, 9]), beside, classes, fraction, seed)
    assert alone[0] == among[1]
    assert 0 <= int(alone) <= 9


def test_more_noise_leaves_what_was_wrong():
    labels, some = noisy(0.2, list(range(10)))
    _, more = noisy(0.6, list(range(10)))
    wrong = some != labels
    assert torch.equal(more[wrong], some[wrong])
    assert (more != labels).sum() > 2 * wrong.sum()


def test_bytes_stay_bytes():
    labels = torch.tensor([1, 7], dtype=torch.uint8)
    taught = symmetric_noise(labels, torch.arange(2), list(range(10)), 0.99, 0)
    assert taught.dtype == torch.uint8
