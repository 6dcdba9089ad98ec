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
