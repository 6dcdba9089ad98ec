"""Multi-level logit distillation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import batch_correlation_loss, class_correlation_loss, soft_label_loss
from kdlit.objectives.teacher_labels import TeacherLabels
from kdlit.objectives.transforms import LogitTransform
from kdlit.schedules import Weight


class MLKDLabels(TeacherLabels):
    r"""Predictions agree with the teacher's at three levels, each at several temperatures.

    .. math:: \mathcal{L} = \sum_{T} \bigl( w_\text{instance} \, \mathcal{L}_\text{soft}(T)
        + w_\text{batch} \, \mathcal{L}_\text{batch}(T) + w_\text{class} \,
        \mathcal{L}_\text{class}(T) \bigr) + w_\text{truth} \, \mathrm{CE}(z, y)

    with :func:`kdlit.functional.soft_label_loss`, :func:`kdlit.functional.batch_correlation_loss`
    and :func:`kdlit.functional.class_correlation_loss`. Each term is a sum over the temperatures,
    as the authors' code has it: more of them weigh more. Batch and class level compare the samples
    of a batch, of one process where there are several.

    The authors also train on a strongly and a weakly augmented view of each sample, and mask most
    terms by how sure the teacher is of a sample or class; both are left out.

    Args:
        instance: weight >= 0 of the sum of soft labels. Default 0.9, as in the authors' code.
        batch: weight >= 0 of the level of samples. Default 0.9, as there.
        classes: weight >= 0 of the level of classes. Default 0.9, as there.
        truth: weight >= 0 of the cross-entropy. Default 0.1, as there.
        temperatures: each > 0. Default 2, 3, 4, 5 and 6, as there.
        transform: of the logits that are compared, or None.

    Raises:
        ConfigError: if an argument is out of its range, or there is no temperature.

    Source: Jin, Wang, Lin, "Multi-Level Logit Distillation", 2023, section 3 (CVPR).

    >>> MLKDLabels(temperatures=[2, 4])
    MLKDLabels(instance=0.9, batch=0.9, classes=0.9, truth=0.1, temperatures=(2.0, 4.0))
    """

    def __init__(
        self,
        instance: Weight = 0.9,
        batch: Weight = 0.9,
        classes: Weight = 0.9,
        truth: Weight = 0.1,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        transform: LogitTransform | None = None,
    ) -> None:
        weights = {"instance": instance, "batch": batch, "classes": classes, "truth": truth}
        super().__init__(weights, transform)
        if isinstance(temperatures, (str, int, float)) or not len(temperatures):
            raise ConfigError(
                f"`temperatures` must be a list of one or more, such as [2,4], got {temperatures!r}"
            )
        self.temperatures = tuple(checks.positive("temperatures", each) for each in temperatures)

    def compare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the three levels."""
        z, t = self.pair(student, teacher)

        def summed(loss: Callable[[Tensor, Tensor, float], Tensor]) -> Tensor:
            found = [loss(z, t, each) for each in self.temperatures]
            return torch.stack(found).sum()

        return {
            "instance": summed(soft_label_loss),
            "batch": summed(batch_correlation_loss),
            "classes": summed(class_correlation_loss),
        }

    def settings(self) -> dict[str, object]:
        """Return the temperatures."""
        return {"temperatures": self.temperatures}
