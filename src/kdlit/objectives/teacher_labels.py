"""What label strategies share that compare the student's logits with the teacher's."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.objectives.base import Objective, logits_of, target_of
from kdlit.objectives.transforms import LogitTransform, check_transform
from kdlit.schedules import Schedule, Weight, check_weight


class TeacherLabels(Objective):
    r"""Terms between student and teacher, and the loss with the ground truth.

    .. math:: \mathcal{L} = \sum_i w_i \, \mathcal{L}_i\bigl(f(z, t), y\bigr)
        + w_\text{truth} \, \mathrm{CE}(z, y)

    A subclass says in `compare` what the terms are. The cross-entropy stands for the loss of the
    strategy's task. A transform f acts on the logits that are compared, and never on the loss with
    the truth. A term with weight 0 is left out, and
    where no other than `truth` remains, no teacher is needed.

    Args:
        weights: of the terms; `truth` is the task's loss.
        transform: f, such as :class:`kdlit.objectives.Standardize`, or None.

    Raises:
        ConfigError: if a weight is negative or all are 0, or `transform` is no transform.
    """

    def __init__(
        self, weights: Mapping[str, Weight], transform: LogitTransform | None = None
    ) -> None:
        super().__init__()
        self.weights = kept(weights)
        self.needs_teacher = set(self.weights) != {"truth"}
        self.transform = check_transform(transform)

    @abstractmethod
    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms between the logits of `pair`, at least those that have a weight."""

    def pair(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        """Return the logits of both, transformed."""
        z, t = student.logits, logits_of(teacher)
        return (z, t) if self.transform is None else self.transform(z, t)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        terms: dict[str, Tensor] = {}
        if self.needs_teacher:
            terms |= self.compare(student, teacher, batch)
        if "truth" in self.weights:
            terms["truth"] = self.task.loss(student.logits, target_of(batch))
        return {name: terms[name] for name in self.weights}

    def settings(self) -> dict[str, object]:
        """Return the hyperparameters to show beside the weights."""
        return {}

    def extra_repr(self) -> str:
        """Show the weights, the other hyperparameters and the transform."""
        shown = {**self.weights, **self.settings()}
        if self.transform is not None:
            shown["transform"] = self.transform
        return ", ".join(f"{name}={_short(value)}" for name, value in shown.items())


def kept(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return the weights that are not 0, or raise `ConfigError` if one is bad or none is left."""
    checked = {name: check_weight(name, weight) for name, weight in weights.items()}
    found = {
        name: weight
        for name, weight in checked.items()
        if isinstance(weight, Schedule) or weight > 0
    }
    if not found:
        names = ", ".join(f"`{name}`" for name in weights)
        raise ConfigError(f"at least one of {names} must be > 0, got 0 for all")
    return found


def mixed(term: str, alpha: object) -> dict[str, Weight]:
    """Return the weights of `alpha * term + (1 - alpha) * truth`.

    >>> mixed("soft", 0.75)
    {'soft': 0.75, 'truth': 0.25}
    """
    share = checks.fraction("alpha", alpha)
    return {term: share, "truth": 1 - share}


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return type(value).__name__ if isinstance(value, Schedule) else repr(value)
