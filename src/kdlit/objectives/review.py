"""Knowledge review."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import hierarchical_context_loss
from kdlit.functional.precision import float32_at_least
from kdlit.objectives.base import DryRun, Objective, teacher_of
from kdlit.objectives.layers import resized
from kdlit.objectives.parts import as_maps, layer_names
from kdlit.schedules import Weight, check_weight
from kdlit.taps import PENULTIMATE

MOST_CHANNELS = 512
"""The widest that fusions are inside, as in the authors' code."""


class ReviewKD(Objective):
    r"""Every stage of the teacher teaches the student's same stage and all that follow.

    .. math:: \mathcal{L} = w \sum_i \mathrm{HCL}\bigl(f_i, t_i\bigr), \quad
        (f_i, r_i) = \mathrm{ABF}_i(s_i, r_{i+1})

    From the deepest stage to the first, a fusion ABF weighs the student's maps s_i against the
    residual r of the deeper stages, pixel by pixel, and its result is compared with the teacher's
    maps t_i by :func:`kdlit.functional.hierarchical_context_loss`. The gradient of a shallow
    stage of the teacher so reaches deeper stages of the student. The fusions are trained with the
    student and not shipped.

    Stages may differ in size: the residual is brought to the student's size by nearest neighbours,
    as in the paper, and the fused maps to the teacher's by averaging or interpolation, where the
    authors' code takes nearest neighbours here too. A layer of vectors (N, D) counts as maps of one
    pixel; the authors add the pooled last features as a stage in this way.

    Args:
        student_layers: names of layers that give maps or vectors, from the first to the deepest.
        teacher_layers: as many of the teacher, in the same order.
        weight: w. Default 5, as in the authors' code for most pairs on CIFAR-100, where it grows
            from 0 over the first 20 epochs (:class:`kdlit.schedules.LinearWarmup`).

    Raises:
        ConfigError: if the numbers of layers differ or are 0; at set-up, if a layer gives neither
            maps nor vectors.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review", 2021, section 3
    (arXiv:2104.09044).

    >>> ReviewKD(["block1", "block2"], ["layer2", "layer3"]).weights
    {'review': 5.0}
    >>> ReviewKD(["block1", "block2"], ["layer3"])
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `student_layers` and `teacher_layers` must be as many, got 2 and 1
    """

    fusions: nn.ModuleList

    def __init__(
        self,
        student_layers: Sequence[str] = (PENULTIMATE,),
        teacher_layers: Sequence[str] = (PENULTIMATE,),
        weight: Weight = 5.0,
    ) -> None:
        super().__init__()
        self.student_layers = layer_names("student_layers", student_layers)
        self.teacher_layers = layer_names("teacher_layers", teacher_layers)
        if len(self.student_layers) != len(self.teacher_layers):
            raise ConfigError(
                "`student_layers` and `teacher_layers` must be as many, "
                f"got {len(self.student_layers)} and {len(self.teacher_layers)}"
            )
        self.weights = {"review": check_weight("weight", weight)}

    def stages(self, student: Outputs, teacher: Outputs | None) -> list[tuple[Tensor, Tensor]]:
        """Return both networks' maps, from the first stage to the deepest."""
        theirs = teacher_of(teacher).features
        return [
            (as_maps(student.features[one], "student"), as_maps(theirs[two], "teacher"))
            for one, two in zip(self.student_layers, self.teacher_layers, strict=True)
        ]

    def setup(self, run: DryRun) -> None:
        """Make the fusions: the deepest has nothing to fuse with."""
        stages = self.stages(run.student, run.teacher)
        width = min(MOST_CHANNELS, stages[-1][0].shape[1])
        self.fusions = nn.ModuleList(
            Fusion(ours.shape[1], width, theirs.shape[1], fuses=number < len(stages))
            for number, (ours, theirs) in enumerate(stages, start=1)
        )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        stages = self.stages(student, teacher)
        losses, residual = [], None
        for fusion, (ours, theirs) in reversed(list(zip(self.fusions, stages, strict=True))):
            fused, residual = fusion(ours, residual, (theirs.shape[2], theirs.shape[3]))
            losses.append(hierarchical_context_loss(fused, theirs))
        return {"review": torch.stack(losses).sum()}

    def extra_repr(self) -> str:
        """Show the layers."""
        return f"student={self.student_layers}, teacher={self.teacher_layers}"


class Fusion(nn.Module):
    """Weighs a stage's maps against the deeper stages', and shapes the result like the teacher's.

    Args:
        channels: of the stage.
        width: channels inside, and of the residual.
        teacher: channels of the teacher's maps.
        fuses: whether there are deeper stages.
    """

    def __init__(self, channels: int, width: int, teacher: int, *, fuses: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, width, kernel_size=1, bias=False), nn.BatchNorm2d(width)
        )
        self.outer = nn.Sequential(
            nn.Conv2d(width, teacher, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(teacher),
        )
        self.attention = nn.Conv2d(2 * width, 2, kernel_size=1) if fuses else None
        for part in (self.inner, self.outer):
            nn.init.kaiming_uniform_(next(part.parameters()), a=1)

    def forward(
        self, maps: Tensor, residual: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the result, in float32 at least, and the residual for the next stage.

        Args:
            maps: the stage's, (N, channels, H, W).
            residual: of the deeper stages, (N, width, h, w), if there are any.
            size: of the teacher's maps, and of what is returned.
        """
        inside = self.inner(maps.to(next(self.parameters()).dtype))
        if self.attention is not None and residual is not None:
            residual = F.interpolate(residual, inside.shape[2:], mode="nearest")
            shares = torch.sigmoid(self.attention(torch.cat([inside, residual], dim=1)))
            inside = inside * shares[:, :1] + residual * shares[:, 1:]
        inside = resized(inside, size)
        return float32_at_least(self.outer(inside)), inside
