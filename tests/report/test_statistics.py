import numpy as np
import pytest
from scipy import stats

from kdlit.report.statistics import estimate, holm, paired

VALUES = [0.9779, 0.9758, 0.9801, 0.9790, 0.9766]
OTHERS = [0.9579, 0.9610, 0.9541, 0.9588, 0.9570]


def test_the_interval_is_students():
    found = estimate(VALUES)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    # 2.776 is the table's t for 4 degrees of freedom.
    assert found.half == pytest.approx(2.776 * np.std(VALUES, ddof=1) / 5**0.5, rel=1e-3)


def test_the_comparison_is_by_seed_whatever_their_order():
    ours, theirs = dict(enumerate(VALUES)), dict(enumerate(OTHERS))
    found = paired(dict(reversed(ours.items())), {**theirs, 7: 0.1})
    assert found.difference.n == 5
    assert found.p == pytest.approx(stats.ttest_rel(VALUES, OTHERS).pvalue, rel=1e-9)
    interval = stats.ttest_rel(VALUES, OTHERS).confidence_interval(0.95)
    assert found.difference.low == pytest.approx(interval.low, rel=1e-9)
    assert found.difference.high == pytest.approx(interval.high, rel=1e-9)


def test_one_seed_and_differences_without_spread_support_nothing():
    assert estimate([0.9]).half is None
    assert paired({0: 0.9}, {1: 0.8}) is None
    for ours, theirs in (({0: 0.9}, {0: 0.8}), ({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.7})):
        found = paired(ours, theirs)
        assert found.p is None
        assert not found.difference.excludes_zero


def test_holm_by_a_worked_example():
    # Sorted .005 .01 .03 .04, times 4 3 2 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.2, None]) == [None, pytest.approx(0.2), None]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
