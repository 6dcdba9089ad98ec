"""Factor transfer."""

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import factor_loss
from kdlit.functional.checks import check_maps
from kdlit.objectives.base import DryRun
from kdlit.objectives.layers import LayerObjective, resized
from kdlit.objectives.parts import applied
from kdlit.schedules import Weight, check_weight


class FactorTransfer(LayerObjective):
    r"""The student's maps, translated, imitate the teacher's maps, paraphrased.

    .. math:: \mathcal{L} = w_f \, \frac{1}{N D} \sum_n \left\lVert
        \frac{S(s_n)}{\lVert S(s_n) \rVert_2} - \frac{E(t_n)}{\lVert E(t_n) \rVert_2}
        \right\rVert_1 + w_r \, \mathrm{MSE}\bigl(t, D(E(t))\bigr)

    The paraphraser is an autoencoder of the teacher's maps: encoder E and decoder D of three 3x3
    convolutions (transposed in the decoder) each, with batch norm and leaky ReLU. The translator S
    is like E. They are trained with the student and not shipped.

    Departure from the paper: there the paraphraser is trained first, in a stage of its own, and
    then kept. Here it is trained at the same time, by the term `reconstruction` alone: the term
    `factor` reaches the student and the translator, and never the paraphraser, which could
    otherwise give way by making its factors trivial. The student so imitates factors that still
    change at first; a `weight` that warms up (:class:`kdlit.schedules.LinearWarmup`) gives the
    paraphraser time. The paper's two layers are of one size; here the student's factors are
    resized to the teacher's.

    Args:
        student_layer: the name of a layer that gives maps (N, C, H, W).
        teacher_layer: likewise, of the teacher.
        weight: w_f. Default 200, as for FT in the code of Tian et al., "Contrastive Representation
            Distillation", 2020 (arXiv:1910.10699), which first averages squared factors over the
            channels.
        reconstruction: w_r > 0. Default 1, ours: the paraphraser's parameters are its own, so that
            this is a matter of its learning rate.
        rate: the share of the teacher's channels that the factors have, in (0, 1]. Default 0.5, as
            in the paper's experiments.

    Raises:
        ConfigError: if `rate` is not in (0, 1] or `reconstruction` is 0; at set-up, if a layer does
            not give maps.

    Source: Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor
    Transfer", 2018, section 3 (arXiv:1802.04977).

    >>> FactorTransfer("block2", "layer3").weights
    {'factor': 200.0, 'reconstruction': 1.0}
    """

    term = "factor"
    encoder: nn.Sequential
    decoder: nn.Sequential
    translator: nn.Sequential

    def __init__(
        self,
        student_layer: str,
        teacher_layer: str,
        weight: Weight = 200.0,
        reconstruction: Weight = 1.0,
        rate: float = 0.5,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)
        if reconstruction == 0:
            raise ConfigError(
                "`reconstruction` must be > 0, got 0: nothing else trains the paraphraser"
            )
        self.weights = {
            **self.weights,
            "reconstruction": check_weight("reconstruction", reconstruction),
        }
        self.rate = checks.positive("rate", checks.fraction("rate", rate))

    def setup(self, run: DryRun) -> None:
        """Make paraphraser and translator."""
        ours, theirs = self.pair(run.student, run.teacher)
        check_maps(ours, "student")
        check_maps(theirs, "teacher")
        student, teacher = ours.shape[1], theirs.shape[1]
        factors = max(1, round(self.rate * teacher))
        self.encoder = _convolutions([teacher, teacher, factors, factors])
        self.decoder = _convolutions([factors, factors, teacher, teacher], transposed=True)
        self.translator = _convolutions([student, student, factors, factors])

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the factors' difference, and how well the paraphraser restores the teacher."""
        ours, theirs = self.pair(student, teacher)
        factors = applied(self.encoder, theirs)
        restored = applied(self.decoder, factors)
        translated = resized(applied(self.translator, ours), (theirs.shape[2], theirs.shape[3]))
        return {
            self.term: factor_loss(translated, factors.detach()),
            "reconstruction": F.mse_loss(restored, theirs),
        }


def _convolutions(channels: list[int], *, transposed: bool = False) -> nn.Sequential:
    """Return 3x3 convolutions from one number of channels to the next, which keep the size."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [
            cast(nn.Module, kind(before, after, kernel_size=3, padding=1)),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.1),
        ]
    return nn.Sequential(*layers)
