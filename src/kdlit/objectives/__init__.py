"""Objectives: modules with hyperparameters that turn outputs into named loss terms."""

from kdlit.objectives.base import Objective
from kdlit.objectives.labels import (
    BlendedLabels,
    HardLabels,
    SmoothLabels,
    SoftLabels,
    TruthLabels,
)

__all__ = [
    "BlendedLabels",
    "HardLabels",
    "Objective",
    "SmoothLabels",
    "SoftLabels",
    "TruthLabels",
]
