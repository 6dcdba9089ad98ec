"""Correlation congruence."""

from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.functional import correlation_loss
from kdlit.objectives.base import DryRun
from kdlit.objectives.layers import LayerObjective
from kdlit.objectives.parts import applied
from kdlit.schedules import Weight
from kdlit.taps import PENULTIMATE


class CorrelationCongruence(LayerObjective):
    r"""A kernel of every two samples is the same in the student as in the teacher.

    .. math:: \mathcal{L} = \frac{w}{N^2} \sum_{i,j} \bigl(k(s_i, s_j) - k(t_i, t_j)\bigr)^2

    with the Gaussian kernel k of features of unit length, by its Taylor series; see
    :func:`kdlit.functional.correlation_loss`. Samples are compared within the batch of one process.

    The kernel takes features of any two sizes as they are. With `embedding` both networks' features
    are first mapped linearly to that size, as in the paper, and both maps are trained with the
    student and not shipped. Since the loss alone trains the teacher's map too, it can become small
    by maps that tell samples apart less; without, it can only by the student.

    Args:
        student_layer: a layer's name, or `penultimate`.
        teacher_layer: likewise, of the teacher.
        weight: w. Default 100, as in Knowledge-Distillation-Zoo (AberHu) for this kernel with the
            same gamma and order. The 0.02 in the table of Tian et al., "Contrastive Representation
            Distillation", 2020 (arXiv:1910.10699), belongs to another expression, that the authors'
            own code has: products of the differences of neighbouring samples.
        gamma: > 0, the kernel's sharpness. Default 0.4, as there and in torchdistill.
        order: P >= 1, where the series ends. Default 2, likewise.
        embedding: size of the embeddings, or None for none. Default None, ours.

    Raises:
        ConfigError: if `gamma` is not > 0, or `order` or `embedding` is no integer >= 1.

    Source: Peng et al., "Correlation Congruence for Knowledge Distillation", 2019, section 3
    (arXiv:1904.01802).

    >>> CorrelationCongruence("hidden", "features", gamma=0.0)
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `gamma` must be finite and > 0, got 0.0
    """

    term = "correlation"
    student_embedding: nn.Module
    teacher_embedding: nn.Module

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        weight: Weight = 100.0,
        gamma: float = 0.4,
        order: int = 2,
        embedding: int | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)
        self.gamma = checks.positive("gamma", gamma)
        self.order = checks.integer("order", order)
        self.embedding = None if embedding is None else checks.integer("embedding", embedding)

    def setup(self, run: DryRun) -> None:
        """Make the embeddings, if they are wanted."""
        if self.embedding is not None:
            ours, theirs = self.pair(run.student, run.teacher)
            self.student_embedding = nn.Linear(ours[0].numel(), self.embedding)
            self.teacher_embedding = nn.Linear(theirs[0].numel(), self.embedding)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        ours, theirs = self.pair(student, teacher)
        if self.embedding is not None:
            ours = applied(self.student_embedding, ours.flatten(1))
            theirs = applied(self.teacher_embedding, theirs.flatten(1))
        return {self.term: correlation_loss(ours, theirs, self.gamma, self.order)}

    def extra_repr(self) -> str:
        """Show the kernel and the layers."""
        return f"gamma={self.gamma:g}, order={self.order}, {super().extra_repr()}"
