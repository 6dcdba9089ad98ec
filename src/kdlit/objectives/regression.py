"""Teachers of a student that regresses."""

from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import bounded_regression_loss, logit_mse_loss
from kdlit.objectives.base import target_of
from kdlit.objectives.teacher_labels import TeacherLabels, mixed
from kdlit.schedules import Weight
from kdlit.tasks import Regression


class RegressionLabels(TeacherLabels):
    r"""The teacher's numbers beside the true ones.

    .. math:: \mathcal{L} = \alpha \, \frac{1}{ND} \sum_n \lVert z_n - t_n \rVert_2^2
        + (1 - \alpha) \, \frac{1}{ND} \sum_n \lVert z_n - y_n \rVert_2^2

    For each sample this is, up to a constant, the squared distance from
    :math:`\alpha t_n + (1 - \alpha) y_n`: the teacher helps where it is less noisy than the truth,
    or where there is none. Outputs are (N, D), targets likewise, or (N,) where D = 1. What is
    measured is that of :class:`kdlit.tasks.Regression`.

    Args:
        alpha: weight of the *teacher*, in [0, 1]. Default 0.5, a choice of ours. 1 uses no ground
            truth, and 0 is the baseline without a teacher.

    Raises:
        ConfigError: if `alpha` is not in [0, 1]; at the first batch, if the target has another
            shape than the outputs.

    Source: the plain extension of soft labels to numbers, no paper's own; the imitation of a
    teacher's outputs by squared error is that of :class:`kdlit.objectives.LogitMSELabels`.

    >>> RegressionLabels()
    RegressionLabels(mse=0.5, truth=0.5)
    """

    task = Regression()

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__(mixed("mse", alpha))

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        z, t = self.pair(student, teacher)
        return {"mse": logit_mse_loss(z, t)}


class BoundedRegressionLabels(TeacherLabels):
    r"""The truth, and once more where the student errs more than the teacher.

    .. math:: \mathcal{L} = \frac1{N} \sum_n e_n + \nu \, \frac1N \sum_n [\, e_n + m > e'_n \,] \,
        e_n

    with the student's and the teacher's mean squared errors :math:`e_n` and :math:`e'_n` of a
    sample; see :func:`kdlit.functional.bounded_regression_loss`. A teacher that is far off does no
    harm. It needs the ground truth.

    Args:
        weight: nu >= 0. Default 0.5, a choice of ours.
        margin: m >= 0, of a mean squared error. Default 0: without it the student is left alone as
            soon as it errs no more than the teacher.

    Raises:
        ConfigError: if an argument is negative.

    Source: Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models with
    Knowledge Distillation", 2017 (NeurIPS), section 3.3. The truth's term there is a smooth L1
    loss.

    >>> BoundedRegressionLabels(margin=0.1)
    BoundedRegressionLabels(bounded=0.5, truth=1, margin=0.1)
    """

    task = Regression()

    def __init__(self, weight: Weight = 0.5, margin: float = 0.0) -> None:
        super().__init__({"bounded": weight, "truth": 1.0})
        self.margin = checks.non_negative("margin", margin)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        z, t = self.pair(student, teacher)
        return {"bounded": bounded_regression_loss(z, t, target_of(batch), self.margin)}

    def settings(self) -> dict[str, object]:
        """Return the margin."""
        return {"margin": self.margin}
