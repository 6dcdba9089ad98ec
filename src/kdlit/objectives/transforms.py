"""What can be done to the logits of student and teacher before they are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from kdlit import checks
from kdlit.errors import ConfigError
from kdlit.functional import keep_top_k, standardize
from kdlit.functional.precision import float32_at_least

LogitTransform: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps (student logits, teacher logits) to the pair that is compared."""


@dataclass(frozen=True)
class Standardize:
    """Student's and teacher's logits with mean 0 and standard deviation 1 in each sample.

    See :func:`kdlit.functional.standardize`. The student learns the relations between the
    teacher's logits and need not have their range.

    Source: Sun et al., "Logit Standardization in Knowledge Distillation", 2024
    (arXiv:2403.01427).

    >>> import torch
    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 50.0, 100.0]])
    >>> torch.allclose(*Standardize()(student, teacher))
    True
    """

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, standardized."""
        return standardize(student_logits), standardize(teacher_logits)


@dataclass(frozen=True)
class TopK:
    """The teacher's distribution cut off after its k largest classes, which then sum to 1.

    See :func:`kdlit.functional.keep_top_k`. It is what remains of a teacher whose answers are
    stored in short. The student's distribution stays whole: under
    :class:`kdlit.objectives.SoftLabels` it is asked for probability 0 elsewhere.

    Args:
        k: how many classes to keep, at least 2: with one, labels are the teacher's decisions, which
            is :class:`kdlit.objectives.HardLabels`. The configuration's default of 5 is ours.

    Raises:
        ConfigError: if k is no integer >= 2; at the first batch, if there are fewer classes.

    >>> import torch
    >>> _, teacher = TopK(2)(torch.zeros(1, 3), torch.tensor([[0.0, 2.0, 2.0]]))
    >>> torch.softmax(teacher, dim=1).tolist()
    [[0.0, 0.5, 0.5]]
    """

    k: int

    truncates = True
    """Whether some of the teacher's probabilities become 0."""

    def __post_init__(self) -> None:
        checks.integer("k", self.k, least=2)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's logits as they are, and the teacher's truncated."""
        return student_logits, keep_top_k(teacher_logits, self.k)


@dataclass(frozen=True)
class Soften:
    """The teacher's distribution at a higher temperature, and the student's as it is.

    The student becomes as unsure as the softened teacher is. A temperature of the label strategy
    softens both, which a student's logits must be made for: those of
    :class:`kdlit.models.SoftDecisionTree` average log probabilities, and have its exact loss at
    temperature 1 alone.

    Args:
        temperature: T > 0, by which the teacher's logits are divided. The configuration's default
            of 3 is ours.

    Raises:
        ConfigError: if the temperature is not > 0.

    >>> import torch
    >>> _, teacher = Soften(2.0)(torch.zeros(1, 2), torch.tensor([[0.0, 4.0]]))
    >>> teacher.tolist()
    [[0.0, 2.0]]
    """

    temperature: float

    def __post_init__(self) -> None:
        checks.positive("temperature", self.temperature)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's logits as they are, and the teacher's divided, in float32."""
        return student_logits, float32_at_least(teacher_logits) / self.temperature


def check_transform(transform: object) -> LogitTransform | None:
    """Return a transform, or raise `ConfigError` if it is neither None nor callable."""
    if transform is None or callable(transform):
        return transform
    raise ConfigError(
        f"`transform` must be None or a transform such as Standardize(), got {transform!r}"
    )


def refuse_truncation(transform: object, why: str) -> None:
    """Raise `ConfigError` if a transform makes some of the teacher's probabilities 0."""
    if getattr(transform, "truncates", False):
        raise ConfigError(f"`transform` {transform!r} does not fit here: {why}")
