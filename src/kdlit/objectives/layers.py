"""What objectives share that compare a layer of the student with one of the teacher."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdlit.batch import Outputs
from kdlit.errors import ConfigError
from kdlit.functional.precision import float32_at_least
from kdlit.objectives.base import Objective, teacher_of
from kdlit.schedules import Weight, check_weight
from kdlit.taps import PENULTIMATE


class LayerObjective(Objective):
    """Base of the objectives that compare one layer of the student with one of the teacher.

    Args:
        student_layer: a layer's name, or `penultimate`.
        teacher_layer: likewise, of the teacher.
        weight: of the term: a number >= 0, or a schedule.
    """

    term: ClassVar[str]
    """Name of the term; with a single term the objective's own name is logged instead."""

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__()
        self.student_layers, self.teacher_layers = (student_layer,), (teacher_layer,)
        self.weights = {self.term: check_weight("weight", weight)}

    def pair(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        """Return both layers' features, in float32 at least."""
        theirs = teacher_of(teacher).features[self.teacher_layers[0]]
        return (
            float32_at_least(student.features[self.student_layers[0]]),
            float32_at_least(theirs),
        )

    def extra_repr(self) -> str:
        """Show the layers."""
        return f"student={self.student_layers}, teacher={self.teacher_layers}"


class Projector(nn.Module):
    """Maps features of one shape to another: a linear map of the channels, and a change of size.

    Of vectors (N, D) and tokens (N, L, D) the last dimension is mapped; maps (N, C, H, W) go
    through a 1x1 convolution, and are then averaged to a smaller size or interpolated to a larger.

    Args:
        source: an example of what comes in, for its shape.
        target: an example of what is wanted.

    Raises:
        ConfigError: if one is a map and the other is not.

    >>> import torch
    >>> Projector(torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 6, 6))(torch.zeros(5, 8, 4, 4)).shape
    torch.Size([5, 16, 6, 6])
    """

    def __init__(self, source: Tensor, target: Tensor) -> None:
        super().__init__()
        if source.ndim != target.ndim or source.ndim not in (2, 3, 4):
            raise ConfigError(
                "layers to be matched must both give vectors (N, D), tokens (N, L, D) or maps "
                f"(N, C, H, W), got {tuple(source.shape)} for the student and "
                f"{tuple(target.shape)} for the teacher"
            )
        self.size = (target.shape[2], target.shape[3]) if target.ndim == 4 else None
        self.map: nn.Module = (
            nn.Linear(source.shape[-1], target.shape[-1])
            if self.size is None
            else nn.Conv2d(source.shape[1], target.shape[1], kernel_size=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the mapped features, in float32 at least."""
        weight = next(self.map.parameters())
        mapped = float32_at_least(self.map(features.to(weight.dtype)))
        return mapped if self.size is None else resized(mapped, self.size)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps (N, C, H, W) to a smaller size, or interpolate them to a larger one.

    >>> import torch
    >>> resized(torch.arange(4.0).reshape(1, 1, 2, 2), (1, 1)).item()
    1.5
    """
    if tuple(maps.shape[2:]) == size:
        return maps
    if maps.shape[2] >= size[0] and maps.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)
