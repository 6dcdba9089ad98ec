"""Decoupled knowledge distillation."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import dkd_losses
from kdlit.objectives.base import target_of
from kdlit.objectives.teacher_labels import TeacherLabels
from kdlit.objectives.transforms import LogitTransform
from kdlit.schedules import LinearWarmup, Schedule, Weight


class DKDLabels(TeacherLabels):
    r"""Soft labels in two parts: the true class against the rest, and the rest among themselves.

    .. math:: \mathcal{L} = w_\text{tckd} \, \mathrm{TCKD} + w_\text{nckd} \, \mathrm{NCKD}
        + w_\text{truth} \, \mathrm{CE}(z, y)

    with the two parts of :func:`kdlit.functional.dkd_losses`, whose T² they have.

    Args:
        tckd: weight >= 0 of the true class's part, the paper's alpha. Default 1, as in its code.
        nckd: weight >= 0 of the others' part, the paper's beta. Default 8, as there for
            CIFAR-100; a teacher that is less sure wants less.
        truth: weight >= 0 of the cross-entropy. Default 1, as there.
        temperature: T > 0. Default 4, as there.
        warmup_steps: over how many steps `tckd` and `nckd` rise to their values; 0 for none. The
            authors warm up over 20 of 240 epochs; as the number of steps depends on the data, the
            default is none.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if an argument is out of its range; at the first batch, if there are fewer than
            three classes, where the second part is always 0.

    Source: Zhao et al., "Decoupled Knowledge Distillation", 2022, section 3 (arXiv:2203.08679).

    >>> from kdlit.schedules import weight_at
    >>> label = DKDLabels(warmup_steps=4)
    >>> [weight_at(label.weights["nckd"], step) for step in (0, 1, 3, 99)]
    [2.0, 4.0, 8.0, 8.0]
    """

    def __init__(
        self,
        tckd: Weight = 1.0,
        nckd: Weight = 8.0,
        truth: Weight = 1.0,
        temperature: float = 4.0,
        warmup_steps: int = 0,
        transform: LogitTransform | None = None,
    ) -> None:
        super().__init__({"tckd": tckd, "nckd": nckd, "truth": truth}, transform)
        self.temperature = checks.positive("temperature", temperature)
        if checks.integer("warmup_steps", warmup_steps, least=0) > 0:
            self.weights = {
                name: weight if name == "truth" else _warmed(name, weight, warmup_steps)
                for name, weight in self.weights.items()
            }

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the two parts."""
        z, t = self.pair(student, teacher)
        target = target_of(batch)
        tckd, nckd = dkd_losses(z, t, target, self.temperature)
        return {"tckd": tckd, "nckd": nckd}

    def settings(self) -> dict[str, object]:
        """Return the temperature."""
        return {"temperature": self.temperature}


def _warmed(name: str, weight: Weight, steps: int) -> Schedule:
    if isinstance(weight, Schedule):
        raise ConfigError(f"`{name}` is a schedule of its own: leave out `warmup_steps`={steps}")
    return LinearWarmup(weight, steps)
