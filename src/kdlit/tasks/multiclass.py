"""One of C classes."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import probabilities
from kdlit.functional import truth_loss
from kdlit.functional.checks import check_classes
from kdlit.metrics import ClassifierMetrics, NetworkMetrics
from kdlit.tasks.base import Task


class Multiclass(Task):
    """Each sample is of one class: softmax over logits (N, C), targets are class indices (N,).

    Measured are the values of :class:`kdlit.metrics.ClassifierMetrics`: `accuracy`, `ece` and
    `nll`, beside a teacher `agreement` and `kl_from_teacher`.

    Args:
        label_smoothing: epsilon in [0, 1) of :func:`kdlit.functional.truth_loss`.

    Raises:
        ConfigError: if `label_smoothing` is not in [0, 1).

    >>> import torch
    >>> Multiclass().predictions(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    exclusive = True
    criterion = "nll"
    shown = "accuracy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = checks.fraction("label_smoothing", label_smoothing, below_one=True)

    def check(self, logits: Tensor, target: Tensor) -> None:
        """Raise `ConfigError` unless there is one class index for each sample."""
        check_classes(logits, target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return truth_loss(logits, target, self.label_smoothing)

    def predictions(self, logits: Tensor) -> Tensor:
        """Return probabilities that sum to 1 over the last dimension."""
        return probabilities(logits)

    def metrics(self) -> NetworkMetrics:
        """Return accuracy, calibration and likelihood."""
        return ClassifierMetrics()

    def hits(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return whether the likeliest class is the true one."""
        return logits.argmax(dim=-1) == target


MULTICLASS = Multiclass()
"""The task of every label strategy that says nothing else."""
