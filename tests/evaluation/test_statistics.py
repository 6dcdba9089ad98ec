"""Against published values, torchmetrics, and loops written from the definitions."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from kdlit.errors import ConfigError
from kdlit.evaluation.statistics import (
    brier_score,
    describe_answers,
    reliability,
    wilson_interval,
)

LOGITS = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(3))
TARGET = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(right, count, low, high):
    assert wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "count"), [(9809, 10000), (0, 5), (5, 5), (1, 2)])
def test_wilson_solves_its_equation(right, count):
    """Its limits are the shares p at which |share - p| is z standard errors of p."""
    z, share = 1.959963984540054, right / count
    for limit in wilson_interval(right, count):
        error = math.sqrt(limit * (1 - limit) / count)
        assert abs(share - limit) == pytest.approx(z * error, abs=1e-9)


def test_brier_by_definition():
    p = torch.softmax(LOGITS.double(), dim=1).tolist()
    total = 0.0
    for row, truth in zip(p, TARGET.tolist(), strict=True):
        total += sum((value - (c == truth)) ** 2 for c, value in enumerate(row))
    assert brier_score(LOGITS, TARGET) == pytest.approx(total / 200, rel=1e-12)


@pytest.mark.parametrize("scale", [0.3, 3.0, 100.0])
def test_the_bins_give_the_calibration_error(scale):
    logits = scale / 3 * LOGITS
    bins = reliability(logits, TARGET)
    assert sum(one["count"] for one in bins) == 200
    ece = sum(one["count"] / 200 * abs(one["accuracy"] - one["confidence"]) for one in bins)
    expected = multiclass_calibration_error(torch.softmax(logits, 1), TARGET, 4, n_bins=15)
    assert ece == pytest.approx(float(expected), abs=1e-6)
    assert describe_answers(logits, TARGET)["ece"] == pytest.approx(ece, abs=1e-6)
    # At a hundred times the scale some are sure to the last bit.
    assert len(bins) == (16 if scale == 100 else 15)


def test_bins_by_hand():
    confidence, decision = torch.softmax(LOGITS, dim=1).max(dim=1)
    for one in reliability(LOGITS, TARGET, bins=4):
        inside = [n for n in range(200) if one["low"] <= confidence[n] < one["high"]]
        assert one["count"] == len(inside)
        if inside:
            mean = sum(float(confidence[n]) for n in inside) / len(inside)
            right = sum(int(decision[n] == TARGET[n]) for n in inside)
            assert one["confidence"] == pytest.approx(mean)
            assert one["accuracy"] == pytest.approx(right / len(inside))


def test_counts_by_hand():
    found = describe_answers(LOGITS, TARGET)
    decision = LOGITS.argmax(dim=1).tolist()
    pairs = list(zip(TARGET.tolist(), decision, strict=True))
    expected = [[pairs.count((y, c)) for c in range(4)] for y in range(4)]
    assert found["confusion"] == expected
    assert found["right"] == sum(y == c for y, c in pairs)
    assert found["accuracy"] == found["right"] / 200
    assert found["interval"] == list(wilson_interval(found["right"], 200))
    for y, one in enumerate(found["classes"]):
        assert (one["count"], one["right"]) == (sum(expected[y]), expected[y][y])
        assert one["accuracy"] == expected[y][y] / sum(expected[y])
    log_p = torch.log_softmax(LOGITS.double(), dim=1)
    assert found["nll"] == pytest.approx(float(-log_p[range(200), TARGET].mean()), rel=1e-5)


def test_no_samples():
    with pytest.raises(ConfigError, match="no samples"):
        describe_answers(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
