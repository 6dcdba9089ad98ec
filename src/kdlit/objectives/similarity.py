"""Similarity-preserving distillation."""

from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.functional import similarity_loss
from kdlit.objectives.layers import LayerObjective
from kdlit.schedules import Weight
from kdlit.taps import PENULTIMATE


class SimilarityPreserving(LayerObjective):
    r"""Samples that are alike for a layer of the teacher are alike for a layer of the student.

    .. math:: \mathcal{L} = \frac{w}{N^2} \left\lVert G(s) - G(t) \right\rVert_F^2

    with G the inner products of the samples' features, each row of unit length; see
    :func:`kdlit.functional.similarity_loss`. Layers may differ in shape, and nothing but the
    student is trained. Samples are compared within the batch of one process.

    Args:
        student_layer: a layer's name, or `penultimate`. The paper takes the last maps.
        teacher_layer: likewise, of the teacher.
        weight: w. Default 3000, as for SP in Tian et al., "Contrastive Representation
            Distillation", 2020 (arXiv:1910.10699), appendix.

    Source: Tung, Mori, "Similarity-Preserving Knowledge Distillation", 2019 (arXiv:1907.09682).

    >>> SimilarityPreserving("block2", "layer3").weights
    {'similarity': 3000.0}
    """

    term = "similarity"

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        weight: Weight = 3000.0,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        return {self.term: similarity_loss(*self.pair(student, teacher))}
