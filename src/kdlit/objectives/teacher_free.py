"""Teacher-free knowledge distillation: a virtual teacher."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import truth_loss, virtual_teacher_loss
from kdlit.objectives.base import Objective, target_of
from kdlit.objectives.teacher_labels import kept, mixed


class TeacherFreeLabels(Objective):
    r"""Soft labels of a virtual teacher, designed by hand: Tf-KD with regularisation.

    .. math:: \mathcal{L} = \alpha \, \mathcal{L}_\text{virtual}(a, T)
        + (1 - \alpha) \, \mathrm{CE}(z, y)

    with :func:`kdlit.functional.virtual_teacher_loss`, where it says what departs from the paper.
    Runs no teacher. The paper's other variant, in which a network is taught by an earlier self, is
    :class:`SoftLabels` with a trained copy of the student as the teacher (`label=soft
    teacher=checkpoint`).

    Args:
        correct: a in (0, 1), the virtual teacher's probability of the true class. Default 0.99, as
            in the authors' code.
        temperature: T > 0. Default 20, as there for ResNet-18 on CIFAR-100.
        alpha: weight of the virtual teacher, in [0, 1]. Default 0.1, likewise.

    Raises:
        ConfigError: if an argument is out of its range.

    Source: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization",
    2020, section 5 (arXiv:1909.11723).

    >>> TeacherFreeLabels().needs_teacher
    False
    """

    needs_teacher = False

    def __init__(
        self, correct: float = 0.99, temperature: float = 20.0, alpha: float = 0.1
    ) -> None:
        super().__init__()
        self.weights = kept(mixed("virtual", alpha))
        checks.fraction("correct", correct, below_one=True)
        self.correct = checks.positive("correct", correct)
        self.temperature = checks.positive("temperature", temperature)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        z, target, terms = student.logits, target_of(batch), {}
        if "virtual" in self.weights:
            terms["virtual"] = virtual_teacher_loss(z, target, self.correct, self.temperature)
        if "truth" in self.weights:
            terms["truth"] = truth_loss(z, target)
        return terms

    def extra_repr(self) -> str:
        """Show the virtual teacher, the temperature and the weights."""
        weights = ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())
        return f"{weights}, correct={self.correct:g}, temperature={self.temperature:g}"
