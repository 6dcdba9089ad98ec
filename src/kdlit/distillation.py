"""The module that distils a teacher into a student."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.classifier import ClassifierModule, OptimizerFactory, SchedulerFactory
from kdlit.errors import ConfigError, TeacherError
from kdlit.objectives import Objective, SoftLabels
from kdlit.teachers import TeacherSource, as_source


class DistillationModule(ClassifierModule):
    r"""A frozen teacher, a trainable student, and a label strategy between them.

    .. math:: \mathcal{L} = \sum_i w_i \, \mathcal{L}_i(\text{student}, \text{teacher}, y)

    with the weights and terms of the label strategy. Both networks see the same batch: the same
    augmentation, the same mixing.

    The teacher is in evaluation mode for ever and gets no gradients. It is not a submodule: it is
    absent from `parameters()`, `state_dict()`, checkpoints, hyperparameters and the optimizer,
    and yet follows the module to other devices and types. A checkpoint therefore loads without it:
    `DistillationModule.load_from_checkpoint(path, student=network, label=TruthLabels())`.

    Batches may be `(x, y)`, `(x, y, index)` or mappings; see :class:`kdlit.batch.Batch`. Beside
    the values of :class:`kdlit.classifier.ClassifierModule`, validation and test log `agreement`
    and `kl_from_teacher`, and the test the teacher's own values as `test/teacher_accuracy` etc.

    Args:
        student: the network to train; maps a batch's inputs to logits (N, C).
        teacher: a trained network, frozen in place, or a
            :class:`kdlit.teachers.TeacherSource`; None where the label strategy needs none.
        label: what the student is asked to imitate; default :class:`kdlit.SoftLabels`.
        optimizer: see :class:`kdlit.classifier.ClassifierModule`.
        scheduler: likewise.

    Raises:
        ConfigError: if student and teacher share parameters, or `label` is no objective.
        TeacherError: if the label strategy needs a teacher and there is none; at the first batch,
            if student and teacher disagree in the number of classes.

    >>> module = DistillationModule(student=nn.Linear(4, 3), teacher=nn.Linear(4, 3))
    >>> module.label
    SoftLabels(soft=0.9, truth=0.1, temperature=4)
    >>> sorted(module.state_dict())
    ['student.bias', 'student.weight']
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        label: Objective | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.student = student
        self.label = SoftLabels() if label is None else label
        if not isinstance(self.label, Objective):
            raise ConfigError(
                f"`label` must be an objective such as SoftLabels(), got {type(label).__name__}"
            )
        # In a tuple, where torch does not look for submodules.
        self._teacher: tuple[TeacherSource, ...] = ()
        setattr(self, "teacher", teacher)  # noqa: B010
        self.uses_teacher = self.label.needs_teacher
        if self.uses_teacher and teacher is None:
            raise TeacherError(
                f"{type(self.label).__name__} needs a teacher, and `teacher` is None"
            )

    @property
    def teacher(self) -> TeacherSource | None:
        """The teacher, or None; a network that is assigned here is frozen."""
        return self._teacher[0] if self._teacher else None

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a teacher that is assigned out of the submodules, where torch would put it."""
        if name != "teacher":
            super().__setattr__(name, value)
            return
        own = {id(parameter) for parameter in self.student.parameters()}
        if value is not None and any(id(parameter) in own for parameter in value.parameters()):
            raise ConfigError(
                "student and teacher share parameters; freezing the teacher would freeze the "
                "student. Give the teacher a copy (copy.deepcopy)"
            )
        self._teacher = () if value is None else (as_source(value),)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DistillationModule":
        """Move the teacher along: torch calls this for `.to()`, `.cuda()`, `.half()` and so on."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for teacher in self._teacher:
            teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def trained(self) -> nn.Module:
        """The student."""
        return self.student

    def terms(
        self, outputs: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[dict[str, Tensor], Mapping[str, float]]:
        """Return the label strategy's terms and weights."""
        return self.label(outputs, teacher, batch), self.label.weights

    def ask_teacher(self, batch: Batch, outputs: Outputs) -> Outputs | None:
        """Return the teacher's outputs, once they are known to fit the student's.

        Raises:
            TeacherError: if student and teacher disagree in the number of classes.
        """
        if self.teacher is None:
            return None
        teacher: Outputs = self.teacher(batch)
        ours, theirs = outputs.logits.shape, teacher.logits.shape
        if ours != theirs:
            raise TeacherError(
                f"the student has {ours[1]} classes and the teacher {theirs[1]}: both need the "
                "same ones"
                if ours[1] != theirs[1]
                else f"the student answers {ours[0]} samples and the teacher {theirs[0]} of the "
                "same batch"
            )
        return teacher
