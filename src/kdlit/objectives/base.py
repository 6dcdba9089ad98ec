"""The one interface that every objective keeps."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, TeacherError
from kdlit.schedules import Weight
from kdlit.tasks import MULTICLASS, Task

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class DryRun:
    """One batch's outputs before training, for their shapes.

    Attributes:
        student: logits, and the features of the layers that the objective asked for.
        teacher: likewise, or None without a teacher.
        student_network: the network that is trained.
        teacher_network: the teacher's, or None where there is none or more than one.
    """

    student: Outputs
    teacher: Outputs | None
    student_network: nn.Module
    teacher_network: nn.Module | None


class Objective(nn.Module):
    """Maps what student and teacher say of a batch to named scalar terms.

    The training loss is the weighted sum of the terms; every term is logged by its name. An
    objective is an ordinary module: trainable parts of it (projectors, critics) are optimised,
    checkpointed and restored with the student, and are not part of the exported student.

    To add one: subclass, set `weights` in the constructor and return one scalar for each of its
    names from `forward`. A term whose weight is 0 does not belong in `weights`. Parts whose shapes
    depend on the networks are made in `setup`.

    Attributes:
        weights: the weight of each term in the loss: a number, or a schedule over steps.
        needs_teacher: whether `forward` reads the teacher's outputs. Where it is False for all
            objectives the teacher is not run in training.
        needs_index: whether `forward` reads `batch.index`.
        student_layers: layers whose output `forward` finds in `student.features`, by torch's names
            or `penultimate`; see :class:`kdlit.taps.Taps`.
        teacher_layers: likewise for `teacher.features`.
        task: of a label strategy, what the networks' outputs mean, and so what is measured and
            predicted; one of C classes unless it says otherwise. Of other objectives it is not
            read.
    """

    weights: Mapping[str, Weight]
    needs_teacher: bool = True
    needs_index: bool = False
    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()
    task: Task = MULTICLASS

    def setup(self, run: DryRun) -> None:
        """Make the parts whose shapes depend on the networks: once, before the optimizer."""

    def deployed(self, run: DryRun) -> nn.Module:
        """Return the network to train and ship, where it is not the student as it is.

        Called once, before any objective's `setup`, which then sees that network's outputs. It may
        change the student in place, and `student_layers` with it.
        """
        return run.student_network

    @abstractmethod
    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return one scalar, averaged over the batch, for each name in `weights`."""

    def after_step(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """Act after a training batch, with its outputs (no gradients): memories, averages."""


def acts_after_step(objective: Objective) -> bool:
    """Return whether an objective overrides `after_step`."""
    return type(objective).after_step is not Objective.after_step


def looks_inside(objective: Objective) -> bool:
    """Return whether an objective needs a dry run."""
    return bool(
        objective.student_layers
        or objective.teacher_layers
        or type(objective).setup is not Objective.setup
        or type(objective).deployed is not Objective.deployed
    )


def shard_parts(objective: Objective, mesh: "DeviceMesh") -> None:
    """Shard what an objective trains over the processes of a mesh, which sums their gradients."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if any(parameter.requires_grad for parameter in objective.parameters()):
        fully_shard(objective, mesh=mesh, reshard_after_forward=True)
        register_fsdp_forward_method(objective, "after_step")


def target_of(batch: Batch) -> Tensor:
    """Return the ground truth of a batch, or raise a `ConfigError` that says what to do."""
    if batch.target is None:
        raise ConfigError(
            "this objective uses the ground truth, but the batch has no target (mixed images have "
            "none); give labelled "
            "data, or, where the strategy has an alpha, use alpha=1, which reads the teacher alone"
        )
    return batch.target


def index_of(batch: Batch) -> Tensor:
    """Return the samples' indices of a batch, or raise a `ConfigError` that says what to do."""
    if batch.index is None:
        raise ConfigError(
            "this objective needs each sample's index; give batches of (x, y, index), such as "
            "MNISTDataModule(index=True) does"
        )
    return batch.index


def teacher_of(teacher: Outputs | None) -> Outputs:
    """Return the teacher's outputs, without gradients.

    Raises:
        TeacherError: if there is no teacher.
    """
    if teacher is None:
        raise TeacherError("this objective needs a teacher, and there is none")
    features = {name: value.detach() for name, value in teacher.features.items()}
    return Outputs(teacher.logits.detach(), features)


def logits_of(teacher: Outputs | None) -> Tensor:
    """Return the teacher's logits, or raise a `TeacherError` if there is no teacher."""
    return teacher_of(teacher).logits
