"""Checks of constructor arguments: one message style, with the argument's name and its value."""

import math
from collections.abc import Iterable
from difflib import get_close_matches

from kdlit.errors import ConfigError


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"`{name}` must be a number, got {value!r}")
    return float(value)


def positive(name: str, value: object) -> float:
    """Return `value` as a float if it is finite and > 0, else raise `ConfigError`.

    >>> positive("temperature", 4)
    4.0
    >>> positive("temperature", -3.0)
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `temperature` must be finite and > 0, got -3.0
    """
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ConfigError(f"`{name}` must be finite and > 0, got {value}")
    return number


def non_negative(name: str, value: object) -> float:
    """Return `value` as a float if it is finite and >= 0, else raise `ConfigError`."""
    number = _number(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise ConfigError(f"`{name}` must be finite and >= 0, got {value}")
    return number


def fraction(name: str, value: object, *, below_one: bool = False) -> float:
    """Return `value` as a float if it lies in [0, 1] (in [0, 1) with `below_one`)."""
    number = _number(name, value)
    if not 0 <= number <= 1 or (below_one and number == 1):
        raise ConfigError(f"`{name}` must lie in [0, 1{')' if below_one else ']'}, got {value}")
    return number


def integer(name: str, value: object, *, least: int = 1) -> int:
    """Return `value` if it is an integer of at least `least`, else raise `ConfigError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"`{name}` must be an integer >= {least}, got {value!r}")
    return value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest known name, or all of them when none is near.

    >>> did_you_mean("sofd", ["hard", "soft"])
    'did you mean soft?'
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
