"""FitNets' hints."""

from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.functional import hint_loss
from kdlit.objectives.base import DryRun
from kdlit.objectives.layers import LayerObjective, Projector
from kdlit.schedules import Weight
from kdlit.taps import PENULTIMATE


class Hint(LayerObjective):
    r"""A layer of the student, projected, imitates a layer of the teacher.

    .. math:: \mathcal{L} = w \cdot \frac{1}{N D} \sum_n \lVert r(s_n) - t_n \rVert_2^2

    with a projector r, a linear map of the channels (:class:`Projector`) that is trained with the
    student and not shipped. The paper trains student layer and projector in a first stage of
    their own; here, as in later work, all are trained at once.

    Args:
        student_layer: a layer's name, or `penultimate`.
        teacher_layer: likewise, of the teacher.
        weight: w. Default 100, as for FitNets in Tian et al., "Contrastive Representation
            Distillation", 2020 (arXiv:1910.10699), appendix.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, section 2 (arXiv:1412.6550).

    >>> Hint(student_layer="conv2", teacher_layer="layer3").teacher_layers
    ('layer3',)
    """

    term = "hint"
    projector: Projector

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        weight: Weight = 100.0,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)

    def setup(self, run: DryRun) -> None:
        """Make the projector."""
        self.projector = Projector(*self.pair(run.student, run.teacher))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        ours, theirs = self.pair(student, teacher)
        return {self.term: hint_loss(self.projector(ours), theirs)}
