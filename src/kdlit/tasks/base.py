"""What every task says."""

from abc import ABC, abstractmethod

from torch import Tensor

from kdlit.errors import ConfigError
from kdlit.metrics import NetworkMetrics


class Task(ABC):
    """What a network's outputs mean.

    A label strategy has a task (the attribute `task` of :class:`kdlit.Objective`), and
    :class:`kdlit.SupervisedModule` is given one. The modules ask it what to do and never which it
    is. To add one, subclass it and name it as the `task` of a label strategy.

    Attributes:
        exclusive: whether a sample is of one of the C classes, so that its outputs are one
            distribution. Teachers that answer log-probabilities serve no other task.
        criterion: the name, as in `val/nll`, of the measured value that is the loss: it must stay
            finite, and `ReduceLROnPlateau` watches it.
        shown: the name of the measured value that the progress bar shows.
    """

    exclusive: bool = False
    criterion: str
    shown: str

    @abstractmethod
    def check(self, logits: Tensor, target: Tensor) -> None:
        """Raise `ConfigError` unless targets have the shape that belongs to logits (N, C)."""

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss with the ground truth: a scalar, the mean over the batch."""

    @abstractmethod
    def predictions(self, logits: Tensor) -> Tensor:
        """Return what `predict_step` gives for logits (N, ..., C), in float32."""

    @abstractmethod
    def metrics(self) -> NetworkMetrics:
        """Return what measures a network, and how it agrees with a teacher, anew."""

    def hits(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Return which samples are right, boolean, shape (N,), for the accuracy in training.

        None where a sample is neither right nor wrong.
        """
        return None

    def __repr__(self) -> str:
        """Show the kind."""
        return f"{type(self).__name__}()"


def check_task(task: object) -> Task:
    """Return a task, or raise `ConfigError`.

    >>> check_task("regression")
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `task` must be a task such as Regression(), got 'regression'
    """
    if not isinstance(task, Task):
        raise ConfigError(f"`task` must be a task such as Regression(), got {task!r}")
    return task
