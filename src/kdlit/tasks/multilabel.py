"""Several labels a sample, each there or not."""

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from kdlit.errors import ConfigError
from kdlit.functional import binary_kl_divergence, multilabel_truth_loss
from kdlit.functional.multilabel import check_labels
from kdlit.metrics import NetworkMetrics, SampleMean
from kdlit.tasks.base import Task


class BinaryCrossEntropy(SampleMean):
    """The loss :func:`kdlit.functional.multilabel_truth_loss`, over all samples and labels."""

    higher_is_better = False

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: logits and targets, both (N, C)."""
        self._add(multilabel_truth_loss(logits, target), len(logits))


class LabelAgreement(SampleMean):
    r"""The share of labels, of all samples, on which student and teacher decide alike at 1/2.

    .. math:: \frac1{NC} \sum_{n,c} \bigl[\, [z_{nc} > 0] = [t_{nc} > 0] \,\bigr]

    >>> metric = LabelAgreement()
    >>> metric.update(torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, 2.0]]))
    >>> metric.compute().item()
    0.5
    """

    higher_is_better = True

    def update(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Add a batch: logits of both, (N, C)."""
        same = (student_logits > 0) == (teacher_logits > 0)
        self._add(same.float().mean(), len(same))


class BinaryDivergence(SampleMean):
    """The divergence :func:`kdlit.functional.binary_kl_divergence` at T = 1."""

    higher_is_better = False

    def update(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Add a batch: logits of both, (N, C)."""
        self._add(binary_kl_divergence(student_logits, teacher_logits), len(student_logits))


class MultilabelMetrics(NetworkMetrics):
    """What :class:`Multilabel` measures.

    >>> metrics = MultilabelMetrics()
    >>> logits, target = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]), torch.tensor([[1, 0], [0, 1]])
    >>> metrics.update(logits, target)
    >>> {name: round(value, 3) for name, value in metrics.compute().items()}
    {'bce': 0.0, 'f1_macro': 1.0, 'f1_micro': 1.0, 'map': 1.0}
    """

    def _add(self, own: MetricCollection, logits: Tensor, target: Tensor) -> None:
        if target.is_floating_point() and ((target != 0) & (target != 1)).any():
            raise ConfigError("what is measured of several labels needs targets that are 0 or 1")
        scores, truth = torch.sigmoid(logits.float()), target.long()
        for name, metric in own.items():
            metric.update(logits if name == "bce" else scores, truth)

    def _own_metrics(self, outputs: int) -> MetricCollection:
        return MetricCollection(
            {
                "bce": BinaryCrossEntropy(),
                "f1_micro": MultilabelF1Score(outputs, average="micro", validate_args=False),
                "f1_macro": MultilabelF1Score(outputs, average="macro", validate_args=False),
                "map": MultilabelAveragePrecision(outputs, average="macro", validate_args=False),
            },
            compute_groups=False,
        )

    def _teacher_metrics(self) -> MetricCollection:
        return MetricCollection(
            {"agreement": LabelAgreement(), "kl_from_teacher": BinaryDivergence()},
            compute_groups=False,
        )


class Multilabel(Task):
    """Each sample has any of C labels: a sigmoid of each logit (N, C), targets 0 or 1 (N, C).

    Measured are `bce`, the mean binary cross-entropy; `f1_micro` and `f1_macro` of the labels whose
    probability is above 1/2; `map`, the mean over labels of their average precision; and beside a
    teacher `agreement`, the share of labels on which both decide alike, and `kl_from_teacher`.
    There is no accuracy in training.

    >>> Multilabel().predictions(torch.zeros(1, 2)).tolist()
    [[0.5, 0.5]]
    """

    criterion = "bce"
    shown = "f1_micro"

    def check(self, logits: Tensor, target: Tensor) -> None:
        """Raise `ConfigError` unless there is one target for each logit."""
        check_labels(logits, target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy."""
        return multilabel_truth_loss(logits, target)

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the probability of each label."""
        return torch.sigmoid(logits.float())

    def metrics(self) -> NetworkMetrics:
        """Return F1, mean average precision and cross-entropy."""
        return MultilabelMetrics()
