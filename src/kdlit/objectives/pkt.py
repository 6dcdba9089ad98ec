"""Probabilistic knowledge transfer."""

from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.functional import pkt_loss
from kdlit.objectives.layers import LayerObjective
from kdlit.schedules import Weight
from kdlit.taps import PENULTIMATE


class PKT(LayerObjective):
    r"""Each sample has the same likely neighbours for the student as for the teacher.

    .. math:: \mathcal{L} = \frac{w}{N^2} \sum_i \mathrm{KL}\bigl(p_{\cdot|i} \,\|\,
        q_{\cdot|i}\bigr)

    with the probabilities p (teacher) and q (student) of the other samples of the batch that the
    cosines of features give; see :func:`kdlit.functional.pkt_loss`. Features may differ in size;
    nothing but the student is trained. Samples are compared within the batch of one process.

    Args:
        student_layer: a layer's name, or `penultimate`.
        teacher_layer: likewise, of the teacher.
        weight: w. Default 30000, as for PKT in Tian et al., "Contrastive Representation
            Distillation", 2020 (arXiv:1910.10699), appendix: for batches of 64. Since the sum over
            N rows is divided by N², larger batches have a smaller loss.

    Source: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer",
    2018, section 3 (arXiv:1803.10837).

    >>> PKT("hidden", "features").weights
    {'pkt': 30000.0}
    """

    term = "pkt"

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        weight: Weight = 30000.0,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        return {self.term: pkt_loss(*self.pair(student, teacher))}
