"""Weights of loss terms: numbers, or functions of the training step."""

import math
from abc import ABC, abstractmethod
from typing import TypeAlias

from kdlit import checks
from kdlit.errors import ConfigError


class Schedule(ABC):
    """A weight that depends on the training step."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the weight at a step, counted from 0."""


Weight: TypeAlias = float | Schedule


class Constant(Schedule):
    """The same weight at every step.

    >>> Constant(2.0)(1000)
    2.0
    """

    def __init__(self, value: float) -> None:
        self.value = checks.non_negative("value", value)

    def __call__(self, step: int) -> float:
        """Return the value."""
        return self.value


class LinearWarmup(Schedule):
    r"""From near 0 to `value` in equal steps, and `value` from then on.

    .. math:: w(k) = v \cdot \min\Bigl(\frac{k + 1}{K}, 1\Bigr)

    Args:
        value: v >= 0.
        steps: K >= 1. Zhao et al., "Decoupled Knowledge Distillation", 2022 (arXiv:2203.08679),
            warm up over 20 epochs.

    >>> [LinearWarmup(8.0, steps=4)(step) for step in (0, 1, 3, 9)]
    [2.0, 4.0, 8.0, 8.0]
    """

    def __init__(self, value: float, steps: int) -> None:
        self.value = checks.non_negative("value", value)
        self.steps = checks.integer("steps", steps)

    def __call__(self, step: int) -> float:
        """Return the weight at a step."""
        return self.value * min((step + 1) / self.steps, 1.0)


class Cosine(Schedule):
    r"""From `start` to `end` along half a cosine, and `end` from then on.

    .. math:: w(k) = e + \frac{s - e}{2} \Bigl(1 + \cos \pi \min\bigl(\tfrac kK, 1\bigr)\Bigr)

    Args:
        start: s >= 0.
        end: e >= 0.
        steps: K >= 1.

    >>> [round(Cosine(1.0, 0.0, steps=10)(step), 3) for step in (0, 5, 10, 99)]
    [1.0, 0.5, 0.0, 0.0]
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.start = checks.non_negative("start", start)
        self.end = checks.non_negative("end", end)
        self.steps = checks.integer("steps", steps)

    def __call__(self, step: int) -> float:
        """Return the weight at a step."""
        angle = math.pi * min(step / self.steps, 1.0)
        return self.end + (self.start - self.end) / 2 * (1 + math.cos(angle))


def check_weight(name: str, weight: object) -> Weight:
    """Return a weight: a schedule as it is, a number >= 0 as a float; else raise `ConfigError`.

    >>> check_weight("weight", -1)
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `weight` must be finite and >= 0, got -1
    """
    if isinstance(weight, Schedule):
        return weight
    if isinstance(weight, (int, float)):
        return checks.non_negative(name, weight)
    raise ConfigError(
        f"`{name}` must be a number or a schedule such as LinearWarmup(1.0, steps=1000), "
        f"got {weight!r}"
    )


def weight_at(weight: Weight, step: int) -> float:
    """Return what a weight is at a step.

    >>> weight_at(0.5, step=3), weight_at(LinearWarmup(1.0, steps=2), step=0)
    (0.5, 0.5)
    """
    return weight(step) if isinstance(weight, Schedule) else weight
