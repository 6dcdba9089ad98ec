"""Objectives: modules with hyperparameters that turn outputs into named loss terms."""

from kdlit.objectives.attention import AttentionTransfer
from kdlit.objectives.base import DryRun, Objective
from kdlit.objectives.correlation import CorrelationCongruence
from kdlit.objectives.crd import CRD
from kdlit.objectives.dist import DISTLabels
from kdlit.objectives.divergences import JensenShannonLabels, LogitMSELabels, ReverseKLLabels
from kdlit.objectives.dkd import DKDLabels
from kdlit.objectives.factor import FactorTransfer
from kdlit.objectives.hint import Hint
from kdlit.objectives.labels import (
    BlendedLabels,
    HardLabels,
    SmoothLabels,
    SoftLabels,
    TruthLabels,
)
from kdlit.objectives.mlkd import MLKDLabels
from kdlit.objectives.multilabel import MultilabelSoftLabels
from kdlit.objectives.mutual import MutualLearning
from kdlit.objectives.nkd import NKDLabels
from kdlit.objectives.none import NoLabels
from kdlit.objectives.nst import NST
from kdlit.objectives.ofa import OFA
from kdlit.objectives.pkt import PKT
from kdlit.objectives.regression import BoundedRegressionLabels, RegressionLabels
from kdlit.objectives.review import ReviewKD
from kdlit.objectives.rkd import RKD
from kdlit.objectives.self_distillation import SelfDistillation
from kdlit.objectives.similarity import SimilarityPreserving
from kdlit.objectives.simkd import SimKD
from kdlit.objectives.soft_tree import SoftTree
from kdlit.objectives.teacher_free import TeacherFreeLabels
from kdlit.objectives.transforms import Soften, Standardize, TopK
from kdlit.objectives.vid import VID
from kdlit.objectives.wsld import WSLDLabels

__all__ = [
    "CRD",
    "NST",
    "OFA",
    "PKT",
    "RKD",
    "VID",
    "AttentionTransfer",
    "BlendedLabels",
    "BoundedRegressionLabels",
    "CorrelationCongruence",
    "DISTLabels",
    "DKDLabels",
    "DryRun",
    "FactorTransfer",
    "HardLabels",
    "Hint",
    "JensenShannonLabels",
    "LogitMSELabels",
    "MLKDLabels",
    "MultilabelSoftLabels",
    "MutualLearning",
    "NKDLabels",
    "NoLabels",
    "Objective",
    "RegressionLabels",
    "ReverseKLLabels",
    "ReviewKD",
    "SelfDistillation",
    "SimKD",
    "SimilarityPreserving",
    "SmoothLabels",
    "SoftLabels",
    "SoftTree",
    "Soften",
    "Standardize",
    "TeacherFreeLabels",
    "TopK",
    "TruthLabels",
    "WSLDLabels",
]
