"""Soft labels where a sample has several."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import multilabel_soft_loss
from kdlit.objectives.teacher_labels import TeacherLabels, mixed
from kdlit.tasks import Multilabel


class MultilabelSoftLabels(TeacherLabels):
    r"""The teacher's probability of each of several labels, mixed with the ground truth.

    .. math:: \mathcal{L} = \alpha \, T^2 \, \frac1{NC} \sum_{n,c} \mathrm{KL}\bigl(
        \mathrm{Bern}(\sigma(t_{nc}/T)) \,\|\, \mathrm{Bern}(\sigma(z_{nc}/T))\bigr)
        + (1 - \alpha) \, \mathrm{BCE}(z, y)

    with the binary cross-entropy averaged over samples and labels likewise. Logits are (N, C),
    targets 0 or 1 of the same shape. What is measured is that of :class:`kdlit.tasks.Multilabel`.

    Args:
        temperature: T > 0. Default 1: the source has none.
        alpha: weight of the *teacher*, in [0, 1]. Default 0.9, as of
            :class:`kdlit.SoftLabels`, a choice of ours; the source's configuration weighs the
            teacher's term, there a sum over labels, by 10 beside the truth. 1 uses no ground
            truth, and 0 is the baseline without a teacher.

    Raises:
        ConfigError: if `temperature` is not > 0 or `alpha` not in [0, 1]; at the first batch, if
            the target has not the logits' shape.

    Source: Yang et al., "Multi-Label Knowledge Distillation", 2023 (arXiv:2308.06453), its
    distillation of logits; the temperature is Hinton's.

    >>> MultilabelSoftLabels()
    MultilabelSoftLabels(soft=0.9, truth=0.1, temperature=1)
    """

    task = Multilabel()

    def __init__(self, temperature: float = 1.0, alpha: float = 0.9) -> None:
        super().__init__(mixed("soft", alpha))
        self.temperature = checks.positive("temperature", temperature)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        z, t = self.pair(student, teacher)
        return {"soft": multilabel_soft_loss(z, t, self.temperature)}

    def settings(self) -> dict[str, object]:
        """Return the temperature."""
        return {"temperature": self.temperature}
