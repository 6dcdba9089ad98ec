"""One classifier on a labelled set: accuracy with its interval, calibration, losses, confusions."""

from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from kdlit.batch import probabilities
from kdlit.errors import ConfigError
from kdlit.metrics import ECE_BINS, ClassifierMetrics

CONFIDENCE = 0.95
"""Of the intervals around accuracies."""


def wilson_interval(right: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    r"""Return Wilson's score interval of a share, without continuity correction.

    .. math:: \frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}
              {1 + z^2 / n}

    with :math:`\hat p` the share of n that is right and z the normal quantile of the confidence.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927;
    recommended by Brown, Cai, DasGupta, "Interval Estimation for a Binomial Proportion", 2001.

    >>> [round(limit, 4) for limit in wilson_interval(81, 263)]
    [0.2553, 0.3662]
    """
    interval = binomtest(right, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def brier_score(logits: Tensor, target: Tensor) -> float:
    r"""Return the Brier score over all classes, in [0, 2]; 0 is best.

    .. math:: \frac1N \sum_n \sum_c (p_{nc} - [c = y_n])^2

    Args:
        logits: shape (N, C).
        target: class indices, shape (N,).

    Source: Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950, equation 2.

    >>> brier_score(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    0.5
    """
    error = torch.softmax(logits.double(), dim=-1)
    error[torch.arange(len(target)), target] -= 1
    return float(error.square().sum(dim=-1).mean())


def reliability(logits: Tensor, target: Tensor, bins: int = ECE_BINS) -> list[dict[str, float]]:
    r"""Return mean confidence, accuracy and number of samples by bins of the top-class confidence.

    Bin b holds confidences in [b/bins, (b+1)/bins). Those that are exactly 1 in float32 have a bin
    of their own at the end, from 1 to 1, if there are any: so torchmetrics counts them, and so

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{N} |\mathrm{accuracy}_b - \mathrm{confidence}_b|

    is the calibration error of :class:`kdlit.metrics.ClassifierMetrics`.

    Returns:
        For each bin `low`, `high`, `count`, and where there are samples `confidence` and
        `accuracy`, else 0.

    >>> found = reliability(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0]), bins=2)
    >>> [(one["low"], one["count"], one["accuracy"]) for one in found]
    [(0.0, 0, 0.0), (0.5, 2, 0.5)]
    """
    confidence, decision = probabilities(logits).max(dim=-1)
    edges = torch.linspace(0, 1, bins + 1)
    where = torch.bucketize(confidence, edges, right=True) - 1
    right = (decision == target).double()
    found = []
    for number in range(bins + 1):
        inside = where == number
        count = int(inside.sum())
        if number == bins and not count:
            break
        found.append(
            {
                "low": number / bins,
                "high": min(number + 1, bins) / bins,
                "count": count,
                "confidence": float(confidence[inside].double().mean()) if count else 0.0,
                "accuracy": float(right[inside].mean()) if count else 0.0,
            }
        )
    return found


def describe_answers(logits: Tensor, target: Tensor) -> dict[str, Any]:
    """Return everything that one network's answers to a labelled set say of it, JSON-like.

    Args:
        logits: shape (N, C), on the CPU.
        target: class indices, shape (N,).

    Returns:
        `count` and `right` samples; `accuracy` with its Wilson `interval`; `ece`, `nll` (nats) and
        `brier`; the `bins` of :func:`reliability`; `classes` with each one's `count`, `right` and
        `accuracy` (None for a class without samples); `confusion`, where row y, column c is the
        number of samples of class y that were taken for c.

    Raises:
        ConfigError: if there are no samples.

    >>> found = describe_answers(3 * torch.eye(2), torch.tensor([0, 0]))
    >>> found["accuracy"], found["confusion"], found["classes"][1]["accuracy"]
    (0.5, [[1, 1], [0, 0]], None)
    """
    if not len(target):
        raise ConfigError("there are no samples to evaluate on")
    metrics = ClassifierMetrics()
    metrics.update(logits, target)
    found = metrics.compute()
    confusion = multiclass_confusion_matrix(logits.argmax(dim=-1), target, logits.shape[-1])
    right, count = int(confusion.trace()), len(target)
    classes = [
        {"count": total, "right": own, "accuracy": own / total if total else None}
        for total, own in zip(
            confusion.sum(dim=1).tolist(), confusion.diagonal().tolist(), strict=True
        )
    ]
    return {
        "count": count,
        "right": right,
        "accuracy": right / count,
        "interval": list(wilson_interval(right, count)),
        "ece": found["ece"],
        "nll": found["nll"],
        "brier": brier_score(logits, target),
        "bins": reliability(logits, target),
        "classes": classes,
        "confusion": confusion.tolist(),
    }
