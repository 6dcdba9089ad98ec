import pytest
import torch

from kdlit.errors import NonFiniteError
from kdlit.tally import Tally


def test_means_weigh_by_samples_over_many_steps():
    tally = Tally()
    values, samples = torch.randn(700), torch.randint(1, 9, (700,))
    for step, (value, count) in enumerate(zip(values, samples.tolist(), strict=True)):
        tally.add({"loss": value, "soft": 2 * value}, count, step)
    expected = float((values.double() * samples).sum() / samples.sum())
    assert tally.means() == pytest.approx({"loss": expected, "soft": 2 * expected}, rel=1e-6)


def test_accuracy_is_the_share_of_hits():
    tally = Tally()
    for step, hits in enumerate(([True, False], [True])):
        tally.add({"loss": torch.tensor(0.0)}, len(hits), step, torch.tensor(hits))
    assert tally.means()["accuracy"] == pytest.approx(2 / 3)


def test_is_full_after_some_steps_and_empty_once_read():
    tally, steps = Tally(), 0
    while not tally.is_full:
        tally.add({"loss": torch.tensor(1.0)}, 1, steps)
        steps += 1
    assert len(tally.read()) == steps > 1
    assert not tally.is_full
    assert tally.read() == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_names_the_first_step_that_is_not_finite(bad):
    tally = Tally()
    for step in range(40, 60):
        tally.add({"loss": torch.tensor(bad if step >= 53 else 1.0)}, 8, step)
    with pytest.raises(NonFiniteError, match=r"step 53: loss=(nan|inf)"):
        tally.read()
