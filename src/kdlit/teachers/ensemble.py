"""Several networks that teach as one."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, TeacherError
from kdlit.functional.precision import float32_at_least
from kdlit.teachers.frozen import FrozenTeacher, TeacherSource

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

AVERAGES = ("probabilities", "logits")


class EnsembleTeacher(TeacherSource):
    r"""The average of several frozen networks.

    With `probabilities` it is the arithmetic mean of the members' distributions, given on as its
    logarithm, which is computed in float32 and in log space:

    .. math:: t_{nc} = \log \sum_k w_k \, \mathrm{softmax}(t^k_n)_c

    and with `logits` the geometric one:

    .. math:: t_{nc} = \sum_k w_k \, t^k_{nc}

    The first is of one class out of C; several labels and numbers are averaged with `logits`.

    A temperature is applied to that average, not to each member before averaging; for `logits` the
    two are the same.

    Args:
        teachers: networks, or :class:`FrozenTeacher` of them; each is frozen in place.
        weights: one number >= 0 for each, scaled here to sum to 1; None weights all alike.
        average: `probabilities` or `logits`.

    Raises:
        ConfigError: if there are no teachers, one is no network that could be frozen, or weights
            are negative, all zero or of another number.
        TeacherError: at the first batch, if members have different numbers of classes.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 1
    (arXiv:1503.02531), which names both means as soft targets from an ensemble.

    >>> one, two = nn.Linear(2, 3), nn.Linear(2, 3)
    >>> teacher = EnsembleTeacher([one, two], weights=[3, 1])
    >>> teacher.weights
    (0.75, 0.25)
    >>> teacher(Batch(torch.ones(4, 2))).logits.exp().sum(dim=1).allclose(torch.ones(4))
    True
    """

    def __init__(
        self,
        teachers: Sequence[nn.Module],
        weights: Sequence[float] | None = None,
        average: Literal["probabilities", "logits"] = "probabilities",
    ) -> None:
        super().__init__()
        if isinstance(teachers, nn.Module) or not teachers:
            raise ConfigError("`teachers` must be a list of one network or more")
        self.weights = normalized_weights("weights", weights, len(teachers))
        self.average = check_average("average", average)
        self.normalizes = self.average == "probabilities"
        self.members = nn.ModuleList(_frozen(teacher) for teacher in teachers)
        self.spreads = any(member.spreads for member in self.members)
        self.eval()

    def spread(self, mesh: "DeviceMesh") -> None:
        """Shard the members that say how."""
        for member in self.members.children():
            member.spread(mesh)  # type: ignore[operator]

    @torch.no_grad()
    def forward(self, batch: Batch) -> Outputs:
        """Run every member and average."""
        answers = [float32_at_least(member(batch).logits) for member in self.members]
        shapes = {tuple(logits.shape) for logits in answers}
        if len(shapes) > 1:
            raise TeacherError(
                "the members of an ensemble must have the same classes, got logits of shapes "
                f"{', '.join(map(str, sorted(shapes)))}"
            )
        if self.average == "logits":
            mean = self.weights[0] * answers[0]
            for weight, logits in zip(self.weights[1:], answers[1:], strict=True):
                mean = mean + weight * logits
            return Outputs(mean)
        return Outputs(torch.logsumexp(self._weighted_log_probabilities(answers), dim=0))

    def _weighted_log_probabilities(self, answers: list[Tensor]) -> Tensor:
        return torch.stack(
            [
                torch.log_softmax(logits, dim=-1) + (math.log(weight) if weight else -math.inf)
                for weight, logits in zip(self.weights, answers, strict=True)
            ]
        )

    def extra_repr(self) -> str:
        """Show how it averages."""
        return f"average={self.average}, weights={[round(weight, 4) for weight in self.weights]}"


def _frozen(teacher: nn.Module) -> FrozenTeacher:
    if isinstance(teacher, FrozenTeacher):
        return teacher
    if isinstance(teacher, TeacherSource) or not isinstance(teacher, nn.Module):
        raise ConfigError(
            f"the members of an ensemble must be networks, got {type(teacher).__name__}"
        )
    return FrozenTeacher(teacher)


def normalized_weights(name: str, weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return `count` weights that sum to 1, or raise `ConfigError`.

    >>> normalized_weights("weights", None, 4)
    (0.25, 0.25, 0.25, 0.25)
    """
    if weights is None:
        return (1 / count,) * count
    if len(weights) != count:
        raise ConfigError(f"`{name}` must have one number for each of {count}, got {len(weights)}")
    numbers = [checks.non_negative(name, weight) for weight in weights]
    if not sum(numbers):
        raise ConfigError(f"`{name}` must not be 0 for all, got {list(weights)}")
    return tuple(number / sum(numbers) for number in numbers)


def check_average(name: str, average: str) -> str:
    """Return the name of a mean, or raise `ConfigError`.

    >>> check_average("average", "logit")
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `average` must be one of probabilities, logits: did you mean logits?
    """
    if average not in AVERAGES:
        hint = checks.did_you_mean(str(average), AVERAGES)
        raise ConfigError(f"`{name}` must be one of {', '.join(AVERAGES)}: {hint}")
    return average
