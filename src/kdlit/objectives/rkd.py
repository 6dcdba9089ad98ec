"""Relational knowledge distillation."""

from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import rkd_angle_loss, rkd_distance_loss
from kdlit.objectives.layers import LayerObjective
from kdlit.schedules import Weight, check_weight
from kdlit.taps import PENULTIMATE

LOSSES = {"distance": rkd_distance_loss, "angle": rkd_angle_loss}


class RKD(LayerObjective):
    r"""Distances and angles between samples are the same in the student as in the teacher.

    .. math:: \mathcal{L} = w_d \, \mathcal{L}_\text{distance} + w_a \, \mathcal{L}_\text{angle}

    See :func:`kdlit.functional.rkd_distance_loss` and :func:`kdlit.functional.rkd_angle_loss`.
    Features may differ in size, and be scaled, moved and rotated; nothing but the student is
    trained. Samples are compared within the batch of one process. A term with weight 0 is not
    computed; angles take memory for N³ numbers.

    Args:
        student_layer: a layer's name, or `penultimate`.
        teacher_layer: likewise, of the teacher.
        distance: w_d. Default 25, as for RKD in Tian et al., "Contrastive Representation
            Distillation", 2020 (arXiv:1910.10699), appendix.
        angle: w_a. Default 50, from the same place.

    Raises:
        ConfigError: if a weight is negative, or both are 0.

    Source: Park et al., "Relational Knowledge Distillation", 2019, section 3 (arXiv:1904.05068).

    >>> RKD("hidden", "features").weights
    {'distance': 25.0, 'angle': 50.0}
    >>> RKD(angle=0).weights
    {'distance': 25.0}
    """

    term = "rkd"

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        distance: Weight = 25.0,
        angle: Weight = 50.0,
    ) -> None:
        super().__init__(student_layer, teacher_layer)
        weights = {
            "distance": check_weight("distance", distance),
            "angle": check_weight("angle", angle),
        }
        self.weights = {name: weight for name, weight in weights.items() if weight != 0}
        if not self.weights:
            raise ConfigError("at least one of `distance`, `angle` must be > 0, got 0 for both")

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        ours, theirs = self.pair(student, teacher)
        return {name: LOSSES[name](ours, theirs) for name in self.weights}
