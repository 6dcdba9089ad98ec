"""Normalised knowledge distillation."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import nkd_losses
from kdlit.objectives.base import target_of
from kdlit.objectives.teacher_labels import TeacherLabels
from kdlit.objectives.transforms import LogitTransform
from kdlit.schedules import Weight


class NKDLabels(TeacherLabels):
    r"""Cross-entropies with the teacher: of the true class, and of the others, normalised.

    .. math:: \mathcal{L} = w_\text{target} \, \mathcal{L}_\text{target}
        + w_\text{other} \, \mathcal{L}_\text{other} + w_\text{truth} \, \mathrm{CE}(z, y)

    with the two parts of :func:`kdlit.functional.nkd_losses`; T² stands in the second.

    Args:
        target: weight >= 0 of the true class's part. Default 1, as in the paper.
        other: weight >= 0 of the others' part, the paper's gamma. Default 1.5, as in its code.
        truth: weight >= 0 of the cross-entropy. Default 1, as there.
        temperature: T > 0 of the other classes. Default 1, as there.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if an argument is out of its range; at the first batch, if there are fewer than
            three classes, where the second part is always 0.

    Source: Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels", 2023, section 3 (arXiv:2303.13005).

    >>> NKDLabels()
    NKDLabels(target=1, other=1.5, truth=1, temperature=1)
    """

    def __init__(
        self,
        target: Weight = 1.0,
        other: Weight = 1.5,
        truth: Weight = 1.0,
        temperature: float = 1.0,
        transform: LogitTransform | None = None,
    ) -> None:
        super().__init__({"target": target, "other": other, "truth": truth}, transform)
        self.temperature = checks.positive("temperature", temperature)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the two parts."""
        z, t = self.pair(student, teacher)
        own, other = nkd_losses(z, t, target_of(batch), self.temperature)
        return {"target": own, "other": other}

    def settings(self) -> dict[str, object]:
        """Return the temperature."""
        return {"temperature": self.temperature}
