"""Neuron selectivity transfer."""

from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.functional import nst_loss
from kdlit.objectives.layers import LayerObjective
from kdlit.schedules import Weight


class NST(LayerObjective):
    r"""The student's channels are active at such places of an image as the teacher's channels.

    .. math:: \mathcal{L} = w \cdot \mathrm{MMD}^2\bigl(\{t_i\}, \{s_j\}\bigr)

    the maximum mean discrepancy of both layers' channels, as sets of vectors of unit length, with
    a polynomial kernel; see :func:`kdlit.functional.nst_loss`. No channel of the student belongs to
    one of the teacher, and their numbers may differ; maps of different sizes are averaged to the
    smaller. Nothing but the student is trained.

    Args:
        student_layer: the name of a layer that gives maps (N, C, H, W).
        teacher_layer: likewise, of the teacher.
        weight: w. Default 50, as for NST in Tian et al., "Contrastive Representation Distillation",
            2020 (arXiv:1910.10699), appendix, where it weights the sum over several layers.

    Raises:
        ConfigError: at the first batch, if a layer does not give maps.

    Source: Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
    2017 (arXiv:1707.01219).

    >>> NST("block2", "layer3").weights
    {'nst': 50.0}
    """

    term = "nst"

    def __init__(self, student_layer: str, teacher_layer: str, weight: Weight = 50.0) -> None:
        super().__init__(student_layer, teacher_layer, weight)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        return {self.term: nst_loss(*self.pair(student, teacher))}
