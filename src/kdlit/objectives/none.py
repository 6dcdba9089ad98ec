"""No label strategy: the student imitates features alone."""

from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.objectives.base import Objective
from kdlit.tasks import MULTICLASS, Task
from kdlit.tasks.base import check_task


class NoLabels(Objective):
    """Nothing is asked of the logits; feature objectives are all that is trained on.

    For objectives whose paper has no other loss, such as :class:`kdlit.objectives.SimKD`. A
    student's classifier that no objective reaches keeps its random weights, and under DDP needs
    `strategy="ddp_find_unused_parameters_true"`.

    Args:
        task: what the networks' outputs mean, for what is measured.

    Raises:
        ConfigError: if `task` is no task.

    >>> NoLabels().weights
    {}
    """

    needs_teacher = False

    def __init__(self, task: Task = MULTICLASS) -> None:
        super().__init__()
        self.task = check_task(task)
        self.weights = {}

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return no terms."""
        return {}
