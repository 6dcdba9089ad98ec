"""The plain classifier: teachers, and baselines without a teacher."""

from collections.abc import Mapping

from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.classifier import ClassifierModule, OptimizerFactory, SchedulerFactory
from kdlit.functional import truth_loss
from kdlit.objectives.base import target_of
from kdlit.schedules import Weight


class SupervisedModule(ClassifierModule):
    """Trains a network on the ground truth.

    Args:
        network: maps a batch's inputs to logits (N, C).
        optimizer: see :class:`kdlit.classifier.ClassifierModule`.
        scheduler: likewise.
        label_smoothing: epsilon in [0, 1) of :func:`kdlit.functional.truth_loss`.
        step_size: likewise.

    >>> import torch
    >>> module = SupervisedModule(nn.Linear(4, 3))
    >>> module.predict_step((torch.zeros(2, 4), None), 0).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        label_smoothing: float = 0.0,
        step_size: int | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, step_size)
        self.network = network
        self.label_smoothing = checks.fraction("label_smoothing", label_smoothing, below_one=True)

    @property
    def trained(self) -> nn.Module:
        """The network."""
        return self.network

    def terms(
        self, outputs: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[dict[str, Tensor], Mapping[str, Weight]]:
        """Return the cross-entropy with the ground truth."""
        loss = truth_loss(outputs.logits, target_of(batch), self.label_smoothing)
        return {"truth": loss}, {"truth": 1.0}
