import pytest
import torch

from kdlit.metrics import Agreement, ClassifierMetrics, NegativeLogLikelihood, TeacherDivergence

LOGITS, TEACHER = 3 * torch.randn(50, 4), 3 * torch.randn(50, 4)
TARGET = torch.randint(0, 4, (50,))


def measured(parts: list[int]) -> dict[str, float]:
    metrics = ClassifierMetrics()
    split = (values.split(parts) for values in (LOGITS, TARGET, TEACHER))
    for logits, target, teacher in zip(*split, strict=True):
        metrics.update(logits, target, teacher)
    return metrics.compute()


def test_values_by_definition():
    found = measured([50])
    p = torch.softmax(LOGITS.double(), dim=1)
    confidence, decision = p.max(dim=1)
    right = (decision == TARGET).double()
    ece = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            ece += float(inside.double().mean() * gap)
    q = torch.softmax(TEACHER.double(), dim=1)
    assert found == pytest.approx(
        {
            "accuracy": float(right.mean()),
            "ece": ece,
            "nll": float(-p[range(50), TARGET].log().mean()),
            "agreement": float((decision == q.argmax(dim=1)).double().mean()),
            "kl_from_teacher": float((q * (q / p).log()).sum(dim=1).mean()),
        },
        rel=1e-5,
    )


def test_values_do_not_depend_on_the_size_of_batches():
    assert measured([50]) == pytest.approx(measured([1, 30, 19]), rel=1e-5)


def test_the_bins_of_reliability_are_whole_and_give_the_calibration_error():
    metrics, halves = ClassifierMetrics(), ClassifierMetrics()
    assert metrics.reliability() == []
    metrics.update(LOGITS, TARGET)
    for part in (slice(20), slice(20, 50)):
        halves.update(LOGITS[part], TARGET[part])
    bins = metrics.reliability()
    assert len(bins) == 15
    for whole, both in zip(bins, halves.reliability(), strict=True):
        assert both == pytest.approx(whole, rel=1e-5)
    assert sum(entry["count"] for entry in bins) == 50
    assert sum(entry["count"] * entry["accuracy"] for entry in bins) / 50 == pytest.approx(
        metrics.compute()["accuracy"]
    )
    gaps = [entry["count"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins]
    assert sum(gaps) / 50 == pytest.approx(metrics.compute()["ece"], rel=1e-5)
    p = torch.softmax(LOGITS, dim=1).amax(dim=1)
    inside = (p >= 9 / 15) & (p < 10 / 15)
    assert bins[9]["count"] == int(inside.sum()) > 0
    assert bins[9]["confidence"] == pytest.approx(float(p[inside].mean()), rel=1e-5)


def test_the_bins_are_there_also_where_no_sample_was():
    """Of several processes one may have none, and the others add theirs up with its."""
    metrics = ClassifierMetrics()
    metrics.update(LOGITS[:0], TARGET[:0])
    with pytest.warns(UserWarning, match="before the ``update``"):
        bins = metrics.reliability()
    assert [entry["count"] for entry in bins] == [0] * 15


def test_a_network_that_is_wholly_sure_is_in_the_last_bin():
    metrics = ClassifierMetrics()
    metrics.update(torch.tensor([[1e4, 0.0]]), torch.tensor([1]))
    assert metrics.reliability()[-1] == {"confidence": 1.0, "accuracy": 0.0, "count": 1}


def test_half_precision_is_measured_in_float32():
    metrics = ClassifierMetrics()
    metrics.update(LOGITS.bfloat16(), TARGET)
    reference = ClassifierMetrics()
    reference.update(LOGITS.bfloat16().float(), TARGET)
    assert metrics.compute() == reference.compute()


@pytest.mark.parametrize(
    ("metric", "second"),
    [(NegativeLogLikelihood(), TARGET), (Agreement(), TEACHER), (TeacherDivergence(), TEACHER)],
)
def test_reset_forgets(metric, second):
    metric.update(LOGITS[:10], second[:10])
    metric.reset()
    metric.update(LOGITS, second)
    once = type(metric)()
    once.update(LOGITS, second)
    assert metric.compute() == once.compute()
