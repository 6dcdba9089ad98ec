"""Numbers."""

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MetricCollection, R2Score

from kdlit.functional import logit_mse_loss, regression_truth_loss
from kdlit.functional.regression import columns
from kdlit.metrics import NetworkMetrics, SampleMean
from kdlit.tasks.base import Task


class SquaredError(SampleMean):
    """The loss :func:`kdlit.functional.regression_truth_loss`, over all samples."""

    higher_is_better = False

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Add a batch: predictions and targets, both (N, D)."""
        self._add(regression_truth_loss(predictions, target), len(predictions))


class TeacherSquaredError(SampleMean):
    """The squared difference from the teacher, :func:`kdlit.functional.logit_mse_loss`."""

    higher_is_better = False

    def update(self, predictions: Tensor, teacher_predictions: Tensor) -> None:
        """Add a batch: predictions of both, (N, D)."""
        self._add(logit_mse_loss(predictions, teacher_predictions), len(predictions))


class Determination(R2Score):
    """torchmetrics' R², NaN instead of an error where there are fewer than two samples."""

    def compute(self) -> Tensor:
        """Return the mean over the outputs."""
        return super().compute() if self.total >= 2 else torch.tensor(torch.nan)


class RegressionMetrics(NetworkMetrics):
    """What :class:`Regression` measures.

    >>> metrics = RegressionMetrics()
    >>> metrics.update(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 2.0, 3.0]))
    >>> {name: round(value, 3) for name, value in metrics.compute().items()}
    {'mae': 0.333, 'mse': 0.333, 'r2': 0.5}
    """

    def _add(self, own: MetricCollection, logits: Tensor, target: Tensor) -> None:
        target = columns(target, logits)
        for name, metric in own.items():
            # R² is a difference of large sums.
            exact = name == "r2" and logits.device.type != "mps"
            dtype = torch.float64 if exact else torch.float32
            metric.update(logits.to(dtype), target.to(dtype))

    def _own_metrics(self, outputs: int) -> MetricCollection:
        return MetricCollection(
            {"mse": SquaredError(), "mae": MeanAbsoluteError(), "r2": Determination()},
            compute_groups=False,
        )

    def _teacher_metrics(self) -> MetricCollection:
        return MetricCollection({"mse_from_teacher": TeacherSquaredError()})


class Regression(Task):
    """Each sample has D numbers, predicted by the outputs (N, D); targets (N, D), or (N,) if D = 1.

    Measured are `mse` and `mae`, the mean squared and absolute error, `r2`, the coefficient of
    determination averaged over the D outputs, and beside a teacher `mse_from_teacher`. There is no
    accuracy in training.

    >>> Regression().loss(torch.tensor([[3.0]]), torch.tensor([1.0])).item()
    4.0
    """

    criterion = "mse"
    shown = "mse"

    def check(self, logits: Tensor, target: Tensor) -> None:
        """Raise `ConfigError` unless there is one target for each prediction."""
        columns(target, logits)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error."""
        return regression_truth_loss(logits, target)

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the outputs themselves."""
        return logits.float()

    def metrics(self) -> NetworkMetrics:
        """Return errors and R²."""
        return RegressionMetrics()
