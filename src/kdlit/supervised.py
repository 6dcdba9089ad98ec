"""The plain training on the ground truth: teachers, and baselines without a teacher."""

from collections.abc import Mapping

from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.classifier import ClassifierModule, OptimizerFactory, SchedulerFactory
from kdlit.errors import ConfigError
from kdlit.objectives.base import target_of
from kdlit.positions import Positions
from kdlit.schedules import Weight
from kdlit.tasks import Multiclass, Task
from kdlit.tasks.base import check_task


class SupervisedModule(ClassifierModule):
    """Trains a network on the ground truth.

    Args:
        network: maps a batch's inputs to logits (N, C), or (N, ..., C) with `positions`.
        optimizer: see :class:`kdlit.classifier.ClassifierModule`.
        scheduler: likewise.
        label_smoothing: epsilon in [0, 1) of :func:`kdlit.functional.truth_loss`.
        step_size: likewise.
        positions: likewise.
        task: what the network's outputs mean, such as :class:`kdlit.tasks.Multilabel` or
            :class:`kdlit.tasks.Regression`, which have a loss and metrics of their own; None for
            one of C classes.

    Raises:
        ConfigError: if an argument cannot work.

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
        positions: Positions | None = None,
        task: Task | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler, step_size, positions)
        if task is not None and label_smoothing:
            raise ConfigError(
                f"`label_smoothing` smooths classes, and {task!r} was given: leave one of them out"
            )
        self.network = network
        self._task = Multiclass(label_smoothing) if task is None else check_task(task)

    @property
    def trained(self) -> nn.Module:
        """The network."""
        return self.network

    @property
    def task(self) -> Task:
        """What the network's outputs mean."""
        return self._task

    def terms(
        self, outputs: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[dict[str, Tensor], Mapping[str, Weight]]:
        """Return the task's loss with the ground truth."""
        return {"truth": self.task.loss(outputs.logits, target_of(batch))}, {"truth": 1.0}
