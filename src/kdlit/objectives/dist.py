"""DIST: the relations between predictions, not their values."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import dist_losses
from kdlit.objectives.teacher_labels import TeacherLabels
from kdlit.objectives.transforms import LogitTransform
from kdlit.schedules import Weight


class DISTLabels(TeacherLabels):
    r"""Predictions correlate with the teacher's, within each sample and within each class.

    .. math:: \mathcal{L} = w_\text{inter} \, \mathcal{L}_\text{inter}
        + w_\text{intra} \, \mathcal{L}_\text{intra} + w_\text{truth} \, \mathrm{CE}(z, y)

    with the two terms of :func:`kdlit.functional.dist_losses`, whose T² they have. The second
    compares the samples of a batch, of one process where there are several.

    Args:
        inter: weight >= 0 of the correlation over classes, the paper's beta. Default 1, as in the
            authors' code.
        intra: weight >= 0 of the correlation over samples, the paper's gamma. Default 1, as there.
        truth: weight >= 0 of the cross-entropy. Default 1, as there.
        temperature: T > 0. Default 1, as there.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if an argument is out of its range.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022, section 3
    (arXiv:2205.10536).

    >>> DISTLabels(intra=0.0).weights
    {'inter': 1.0, 'truth': 1.0}
    """

    def __init__(
        self,
        inter: Weight = 1.0,
        intra: Weight = 1.0,
        truth: Weight = 1.0,
        temperature: float = 1.0,
        transform: LogitTransform | None = None,
    ) -> None:
        super().__init__({"inter": inter, "intra": intra, "truth": truth}, transform)
        self.temperature = checks.positive("temperature", temperature)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the two correlations' losses."""
        z, t = self.pair(student, teacher)
        inter, intra = dist_losses(z, t, self.temperature)
        return {"inter": inter, "intra": intra}

    def settings(self) -> dict[str, object]:
        """Return the temperature."""
        return {"temperature": self.temperature}
