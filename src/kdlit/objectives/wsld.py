"""Weighted soft labels."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import wsld_loss, wsld_weights
from kdlit.objectives.base import logits_of, target_of
from kdlit.objectives.teacher_labels import TeacherLabels
from kdlit.objectives.transforms import LogitTransform
from kdlit.schedules import Weight


class WSLDLabels(TeacherLabels):
    r"""Soft labels, weighted down where the student already does better than the teacher.

    .. math:: \mathcal{L} = -w_\text{soft} \, T^2 \, \frac1N \sum_n w_n \sum_c p_{nc} \log q_{nc}
        + w_\text{truth} \, \mathrm{CE}(z, y), \quad
        w_n = 1 - \exp\Bigl(-\frac{\mathrm{CE}(z_n, y_n)}{\mathrm{CE}(t_n, y_n)}\Bigr)

    See :func:`kdlit.functional.wsld_loss`. A transform acts on p and q, not on the weights of the
    samples, which compare how well both networks know the truth.

    Args:
        weighted: weight >= 0 of the weighted soft labels, the paper's alpha. Default 2.5, as in the
            authors' code for ImageNet.
        truth: weight >= 0 of the cross-entropy. Default 1, as there.
        temperature: T > 0. Default 2, as there.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if an argument is out of its range.

    Source: Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
    Tradeoff Perspective", 2021, section 3 (arXiv:2102.00650).

    >>> WSLDLabels()
    WSLDLabels(weighted=2.5, truth=1, temperature=2)
    """

    def __init__(
        self,
        weighted: Weight = 2.5,
        truth: Weight = 1.0,
        temperature: float = 2.0,
        transform: LogitTransform | None = None,
    ) -> None:
        super().__init__({"weighted": weighted, "truth": truth}, transform)
        self.temperature = checks.positive("temperature", temperature)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        weights = wsld_weights(student.logits, logits_of(teacher), target_of(batch))
        z, t = self.pair(student, teacher)
        return {"weighted": wsld_loss(z, t, weights, self.temperature)}

    def settings(self) -> dict[str, object]:
        """Return the temperature."""
        return {"temperature": self.temperature}
