"""Checks of the shapes that the formulas are given."""

from torch import Tensor

from kdlit.errors import ConfigError


def check_same_logits(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raise `ConfigError` unless both are of the same shape (N, C)."""
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        raise ConfigError(
            "student and teacher logits must have the same shape (N, C), got "
            f"{tuple(student_logits.shape)} for the student and "
            f"{tuple(teacher_logits.shape)} for the teacher"
        )


def check_classes(logits: Tensor, target: Tensor) -> None:
    """Raise `ConfigError` unless there is one class index for each row of logits (N, C)."""
    if target.ndim != 1 or len(target) != len(logits):
        raise ConfigError(
            "the ground truth must be class indices, one for each of the logits' "
            f"{len(logits)} rows: got {tuple(target.shape)} for logits {tuple(logits.shape)}. For "
            "several labels a sample use MultilabelSoftLabels, for numbers RegressionLabels, for "
            "one label a token positions=Tokens()"
        )


def check_same_features(student_features: Tensor, teacher_features: Tensor) -> None:
    """Raise `ConfigError` unless both are of the same shape."""
    if student_features.shape != teacher_features.shape:
        raise ConfigError(
            "student and teacher features must have the same shape, got "
            f"{tuple(student_features.shape)} for the student and "
            f"{tuple(teacher_features.shape)} for the teacher"
        )


def check_same_samples(student_features: Tensor, teacher_features: Tensor) -> None:
    """Raise `ConfigError` unless both are features of equally many samples."""
    if student_features.ndim < 2 or len(student_features) != len(teacher_features):
        raise ConfigError(
            "student and teacher features must be of shape (N, ...) with the same N, got "
            f"{tuple(student_features.shape)} for the student and "
            f"{tuple(teacher_features.shape)} for the teacher"
        )


def check_maps(features: Tensor, whose: str) -> None:
    """Raise `ConfigError` unless these are feature maps (N, C, H, W)."""
    if features.ndim != 4:
        raise ConfigError(
            f"the {whose}'s layer must give feature maps (N, C, H, W), got {tuple(features.shape)}"
        )
