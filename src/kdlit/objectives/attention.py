"""Attention transfer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import attention_loss
from kdlit.objectives.base import Objective, teacher_of
from kdlit.objectives.parts import layer_names
from kdlit.schedules import Weight, check_weight


class AttentionTransfer(Objective):
    r"""Maps of the student are active at the places where the teacher's are.

    .. math:: \mathcal{L} = w \sum_l \frac{1}{N H_l W_l} \sum_n \left\lVert
        \frac{Q(s_{ln})}{\lVert Q(s_{ln}) \rVert_2} - \frac{Q(t_{ln})}{\lVert Q(t_{ln}) \rVert_2}
        \right\rVert_2^2, \quad Q(a) = \sum_c |a_c|^p

    summed over pairs l of layers; see :func:`kdlit.functional.attention_loss`, which also states
    how the authors' code, followed here, departs from their equation. Layers may differ in their
    channels, and in their size: attention is then averaged to the smaller.

    Args:
        student_layers: names of layers that give maps (N, C, H, W).
        teacher_layers: as many of the teacher, in the same order.
        weight: w. Default 1000, the paper's for CIFAR, as also for AT in Tian et al., "Contrastive
            Representation Distillation", 2020 (arXiv:1910.10699), appendix.
        p: the power >= 1. Default 2, as in the authors' code.

    Raises:
        ConfigError: if the numbers of layers differ or are 0, or `p` is less than 1; at the first
            batch, if a layer does not give maps.

    Source: Zagoruyko, Komodakis, "Paying More Attention to Attention", 2017, section 3.1
    (arXiv:1612.03928).

    >>> AttentionTransfer(["block1", "block2"], ["layer2", "layer3"]).weights
    {'attention': 1000.0}
    >>> AttentionTransfer(["block1"], ["layer2"], p=0.5)
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `p` must be >= 1, got 0.5
    """

    def __init__(
        self,
        student_layers: Sequence[str],
        teacher_layers: Sequence[str],
        weight: Weight = 1000.0,
        p: float = 2.0,
    ) -> None:
        super().__init__()
        self.student_layers = layer_names("student_layers", student_layers)
        self.teacher_layers = layer_names("teacher_layers", teacher_layers)
        if len(self.student_layers) != len(self.teacher_layers):
            raise ConfigError(
                "`student_layers` and `teacher_layers` must be as many, "
                f"got {len(self.student_layers)} and {len(self.teacher_layers)}"
            )
        self.weights = {"attention": check_weight("weight", weight)}
        self.p = checks.positive("p", p)
        if self.p < 1:
            # The gradient of |a|^p is infinite at 0.
            raise ConfigError(f"`p` must be >= 1, got {p}")

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        theirs = teacher_of(teacher).features
        losses = [
            attention_loss(student.features[one], theirs[two], self.p)
            for one, two in zip(self.student_layers, self.teacher_layers, strict=True)
        ]
        return {"attention": torch.stack(losses).sum()}

    def extra_repr(self) -> str:
        """Show the layers and the power."""
        return f"student={self.student_layers}, teacher={self.teacher_layers}, p={self.p:g}"
