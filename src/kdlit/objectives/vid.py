"""Variational information distillation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import vid_loss
from kdlit.functional.precision import float32_at_least
from kdlit.objectives.base import DryRun
from kdlit.objectives.layers import LayerObjective, Projector
from kdlit.schedules import Weight
from kdlit.taps import PENULTIMATE

LEAST = 1e-5
"""What is added to every variance, as in the authors' code."""


class VID(LayerObjective):
    r"""A layer of the student predicts a layer of the teacher as a Gaussian with learned variances.

    .. math:: \mathcal{L} = w \cdot \frac{1}{N D} \sum_{n,d} \frac12 \left(
        \frac{(t_{nd} - \mu_d(s_n))^2}{\sigma_d^2} + \log \sigma_d^2 \right), \quad
        \sigma_d^2 = \log(1 + e^{\alpha_d}) + \epsilon

    The regressor mu is three linear maps of the channels (1x1 convolutions for maps) with ReLU
    between, as wide as the teacher's layer; there is one alpha for each channel of maps, or for
    each value of vectors. Both are trained with the student and not shipped. What the student
    cannot predict of the teacher gets a large variance, and counts for little.

    The term may be negative. As in Tian et al.'s code maps of different sizes are made equal, which
    the paper does not need; here it is always the student's that are resized. The regressor's maps
    have biases, which the authors' have not.

    Args:
        student_layer: a layer's name, or `penultimate`.
        teacher_layer: likewise, of the teacher.
        weight: w. Default 1, as for VID in the code of Tian et al., "Contrastive Representation
            Distillation", 2020 (arXiv:1910.10699).
        variance: sigma² at the start, > 0.00001. Default 5, from the same code.

    Raises:
        ConfigError: if `variance` is too small; at set-up, if one layer gives maps and the other
            does not.

    Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer", 2019,
    section 2 (arXiv:1904.05835).

    >>> VID(student_layer="conv2", teacher_layer="layer3").weights
    {'vid': 1.0}
    """

    term = "vid"
    regressor: nn.Sequential
    alpha: nn.Parameter

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        weight: Weight = 1.0,
        variance: float = 5.0,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)
        self.start = checks.positive("variance", variance)
        if self.start <= LEAST:
            raise ConfigError(f"`variance` must be > {LEAST}, got {variance}")

    def setup(self, run: DryRun) -> None:
        """Make the regressor and the variances."""
        ours, theirs = self.pair(run.student, run.teacher)
        self.regressor = nn.Sequential(
            Projector(ours, theirs),
            nn.ReLU(),
            Projector(theirs, theirs),
            nn.ReLU(),
            Projector(theirs, theirs),
        )
        shape = (theirs.shape[1], 1, 1) if theirs.ndim == 4 else (theirs.shape[-1],)
        # The inverse of the softplus: log(e^x - 1), which for large x is x itself.
        wanted = self.start - LEAST
        alpha = wanted + math.log(-math.expm1(-wanted))
        self.alpha = nn.Parameter(torch.full(shape, alpha))

    def variance(self) -> Tensor:
        """Return sigma², of a shape that broadcasts over the teacher's features."""
        return F.softplus(float32_at_least(self.alpha)) + LEAST

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        ours, theirs = self.pair(student, teacher)
        return {self.term: vid_loss(self.regressor(ours), self.variance(), theirs)}
