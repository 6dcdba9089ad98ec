"""The one interface that every objective keeps."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, TeacherError


class Objective(nn.Module):
    """Maps what student and teacher say of a batch to named scalar terms.

    The training loss is the weighted sum of the terms; every term is logged by its name. An
    objective is an ordinary module: trainable parts of it (projectors, critics) are optimised,
    checkpointed and restored with the student, and are not part of the exported student.

    To add one: subclass, set `weights` in the constructor and return one scalar for each of its
    names from `forward`. A term whose weight is 0 does not belong in `weights`.

    Attributes:
        weights: the weight of each term in the loss.
        needs_teacher: whether `forward` reads the teacher's outputs. Where it is False the
            teacher is not run in training.
    """

    weights: Mapping[str, float]
    needs_teacher: bool

    @abstractmethod
    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return one scalar, averaged over the batch, for each name in `weights`."""


def target_of(batch: Batch) -> Tensor:
    """Return the ground truth of a batch, or raise a `ConfigError` that says what to do."""
    if batch.target is None:
        raise ConfigError(
            "this objective uses the ground truth, but the batch has no target; give labelled "
            "data, or use alpha=1, which reads the teacher alone"
        )
    return batch.target


def logits_of(teacher: Outputs | None) -> Tensor:
    """Return the teacher's logits, or raise a `TeacherError` if there is no teacher."""
    if teacher is None:
        raise TeacherError("this objective needs a teacher, and there is none")
    return teacher.logits
