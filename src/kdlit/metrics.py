"""Metrics of a classifier, and of a student beside its teacher, on top of torchmetrics."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from kdlit.batch import probabilities
from kdlit.functional import kl_divergence

ECE_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017 (arXiv:1706.04599), section 5."""


class SampleMean(Metric):
    """Mean over all samples seen, also when batches and processes differ in size."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, batch_mean: Tensor, count: int) -> None:
        self.total += batch_mean.float() * count
        self.count += count

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.count


class NegativeLogLikelihood(SampleMean):
    r"""Negative log-likelihood of the ground truth, in nats per sample.

    .. math:: \mathrm{NLL} = -\frac1N \sum_n \log \mathrm{softmax}(z_n)_{y_n}

    `update` takes logits (N, C) and targets (N,).

    >>> metric = NegativeLogLikelihood()
    >>> metric.update(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
    >>> round(metric.compute().item(), 4)
    0.6931
    """

    higher_is_better = False

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self._add(F.cross_entropy(logits.float(), target), len(target))


class Agreement(SampleMean):
    r"""Top-1 agreement: the share of samples on which student and teacher decide alike.

    .. math:: \frac1N \sum_n [\arg\max z_n = \arg\max t_n]

    `update` takes student and teacher logits, both (N, C). Source: Stanton et al., "Does Knowledge
    Distillation Really Work?", 2021, equation 3 (arXiv:2106.05945).

    >>> metric = Agreement()
    >>> metric.update(torch.eye(2), torch.tensor([[3.0, 1.0], [2.0, 0.0]]))
    >>> metric.compute().item()
    0.5
    """

    higher_is_better = True

    def update(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Add a batch."""
        same = student_logits.argmax(dim=-1) == teacher_logits.argmax(dim=-1)
        self._add(same.float().mean(), len(same))


class TeacherDivergence(SampleMean):
    r"""KL divergence of the student from its teacher at T = 1, in nats per sample.

    :func:`kdlit.functional.kl_divergence`, averaged over all samples. `update` takes student and
    teacher logits, both (N, C).

    >>> metric = TeacherDivergence()
    >>> metric.update(torch.eye(2), torch.eye(2))
    >>> metric.compute().item()
    0.0
    """

    higher_is_better = False

    def update(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Add a batch."""
        self._add(kl_divergence(student_logits, teacher_logits), len(student_logits))


class Reliability(Metric):
    r"""How often a network is right when it is so and so sure, in 15 equal bins of confidence.

    The confidence of a sample is the probability of the likeliest class; the bins are those of the
    calibration error, a confidence of 1 belonging to the last. For each bin B

    .. math:: \mathrm{conf}(B) = \frac1{|B|} \sum_{n \in B} \max_c p_{nc}, \qquad
        \mathrm{acc}(B) = \frac1{|B|} \sum_{n \in B} [\arg\max_c p_{nc} = y_n]

    `update` takes probabilities (N, C) and targets (N,); `compute` gives a tensor (15, 3) with the
    sums of confidence and of right decisions, and the counts. Source: Guo et al. 2017, section 2
    (arXiv:1706.04599).

    >>> metric = Reliability()
    >>> metric.update(torch.tensor([[0.9, 0.1], [0.92, 0.08]]), torch.tensor([0, 1]))
    >>> [[round(float(value), 2) for value in row] for row in metric.compute() if row[2]]
    [[1.82, 1.0, 2.0]]
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(ECE_BINS, 3), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add a batch."""
        confidence, decision = scores.max(dim=-1)
        # A confidence that is not a number belongs anywhere: what it makes of the sums is seen.
        place = (confidence * ECE_BINS).long().clamp_(0, ECE_BINS - 1)
        each = torch.stack(
            [confidence, (decision == target).float(), torch.ones_like(confidence)], dim=-1
        )
        # A product, not a scatter: the same to the bit on every device.
        self.sums += F.one_hot(place, ECE_BINS).float().T @ each

    def compute(self) -> Tensor:
        """Return the sums of each bin."""
        return self.sums


class NetworkMetrics(ABC):
    """What is measured of a network over a data set, and beside its teacher.

    The metrics are made at the first batch, when the number of outputs and the device are known,
    so that a user need not say either.
    """

    def __init__(self) -> None:
        self._own: MetricCollection | None = None
        self._beside_teacher: MetricCollection | None = None

    def update(
        self, logits: Tensor, target: Tensor | None, teacher_logits: Tensor | None = None
    ) -> None:
        """Add a batch: logits (N, C), targets, teacher logits (N, C) if there is a teacher.

        Without targets student and teacher are compared, and nothing else is measured.

        Of no samples, N = 0, the metrics are made all the same: the processes of a training must
        have the same ones when they add them up.
        """
        if target is not None and self._own is None:
            self._own = self._own_metrics(logits.shape[-1]).to(logits.device)
        if teacher_logits is not None and self._beside_teacher is None:
            self._beside_teacher = self._teacher_metrics().to(logits.device)
        if not len(logits):
            return
        if self._own is not None and target is not None:
            self._add(self._own, logits, target)
        if self._beside_teacher is not None and teacher_logits is not None:
            self._beside_teacher.update(logits, teacher_logits)

    @abstractmethod
    def _add(self, own: MetricCollection, logits: Tensor, target: Tensor) -> None:
        """Add a batch to what is measured of the network itself."""

    @abstractmethod
    def _own_metrics(self, outputs: int) -> MetricCollection:
        """Make what is measured of a network with C outputs."""

    @abstractmethod
    def _teacher_metrics(self) -> MetricCollection:
        """Make what is measured of student and teacher together."""

    def compute(self) -> dict[str, float]:
        """Return the values over everything seen, on all processes."""
        found: dict[str, float] = {}
        for collection in (self._own, self._beside_teacher):
            if collection is not None:
                found |= {name: float(value) for name, value in collection.compute().items()}
        return found

    def reliability(self) -> list[dict[str, float]]:
        """Return the bins of a reliability diagram, where the network has one confidence."""
        return []


class ClassifierMetrics(NetworkMetrics):
    """Accuracy, calibration error and NLL of a network; agreement and KL beside its teacher.

    ECE is the expected calibration error over 15 equal bins of the top-class confidence (Guo et al.
    2017). All values are fractions or nats, not percent.

    >>> metrics = ClassifierMetrics()
    >>> logits, target = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1])
    >>> metrics.update(logits, target, teacher_logits=logits)
    >>> {name: round(value, 3) for name, value in sorted(metrics.compute().items())}
    {'accuracy': 1.0, 'agreement': 1.0, 'ece': 0.0, 'kl_from_teacher': 0.0, 'nll': 0.0}
    """

    def __init__(self) -> None:
        super().__init__()
        self._reliability: Reliability | None = None

    def update(
        self, logits: Tensor, target: Tensor | None, teacher_logits: Tensor | None = None
    ) -> None:
        """Add a batch; see :meth:`NetworkMetrics.update`."""
        if target is not None and self._reliability is None:
            self._reliability = Reliability().to(logits.device)
        super().update(logits, target, teacher_logits)

    def _add(self, own: MetricCollection, logits: Tensor, target: Tensor) -> None:
        scores = probabilities(logits)
        own["accuracy"].update(scores, target)
        own["ece"].update(scores, target)
        own["nll"].update(logits, target)
        if self._reliability is not None:
            self._reliability.update(scores, target)

    def _own_metrics(self, outputs: int) -> MetricCollection:
        ece = MulticlassCalibrationError(outputs, n_bins=ECE_BINS, validate_args=False)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(outputs, average="micro", validate_args=False),
                "ece": ece,
                "nll": NegativeLogLikelihood(),
            },
            compute_groups=False,
        )

    def _teacher_metrics(self) -> MetricCollection:
        return MetricCollection(
            {"agreement": Agreement(), "kl_from_teacher": TeacherDivergence()},
            compute_groups=False,
        )

    def reliability(self) -> list[dict[str, float]]:
        """Return the bins of the reliability diagram, over everything seen, on all processes.

        Each has its mean `confidence`, its `accuracy`, and the `count` of its samples; a bin
        without samples has its middle as confidence, and an accuracy of 0.

        >>> metrics = ClassifierMetrics()
        >>> metrics.update(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 0]))
        >>> metrics.reliability()[-1]  # doctest: +ELLIPSIS
        {'confidence': 0.9998..., 'accuracy': 0.5, 'count': 2}
        """
        if self._reliability is None:
            return []
        return [
            {
                "confidence": confidence / count if count else (place + 0.5) / ECE_BINS,
                "accuracy": hits / count if count else 0.0,
                "count": int(count),
            }
            for place, (confidence, hits, count) in enumerate(self._reliability.compute().tolist())
        ]
