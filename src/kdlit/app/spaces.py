"""What a search may vary, written in Hydra's grammar of overrides."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from kdlit.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from optuna.distributions import BaseDistribution

_CHANCE = {"seed", "data.seed", "data.split_seed"}
# By what, and on what, a trial is measured.
_MEASURE = {
    "task", "data", "data.val_size", "data.classes", "callbacks", "callbacks.checkpoint",
    "callbacks.checkpoint.monitor", "callbacks.checkpoint.mode",
}  # fmt: skip


def read_space(
    overrides: Sequence[str], loader: "ConfigLoader | None" = None
) -> tuple[list[str], dict[str, "BaseDistribution"]]:
    """Split overrides into those that are the same in all trials, and what is searched.

    `a,b,c` and `choice(a,b,c)` are options; `interval(1,20)` is any number from 1 to 20, and
    `int(interval(1,20))` any integer; `range(1,20,0.5)` is a grid that ends before 20.
    `tag(log,interval(1,20))` is searched on a logarithmic scale.

    Args:
        overrides: as on the command line.
        loader: finds the options that `glob(*)` stands for.

    Raises:
        ConfigError: if an override cannot be read or searched, or if there is nothing to search.

    >>> fixed, space = read_space(["label=soft", "label.temperature=tag(log,interval(1,20))"])
    >>> fixed
    ['label=soft']
    >>> space
    {'label.temperature': FloatDistribution(high=20.0, log=True, low=1.0, step=None)}
    """
    parser = OverridesParser.create(config_loader=loader)
    fixed: list[str] = []
    space: dict[str, BaseDistribution] = {}
    for line in overrides:
        try:
            override = parser.parse_override(line)
        except HydraException as error:
            raise ConfigError(f"{line}: {error}") from error
        key = override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(override.input_line or "")
        elif key.lstrip("+") in _CHANCE:
            raise ConfigError(
                f"{override.input_line}: a search that chose among seeds would find a lucky one; "
                "give one seed, and repeat the best setting with others"
            )
        elif key.lstrip("+") in _MEASURE:
            raise ConfigError(
                f"{override.input_line}: the values of such trials could not be compared; give "
                "one, and search anew for another"
            )
        else:
            space[key] = _distribution(override)
    if not space:
        raise ConfigError(
            "there is nothing to search: give a key an interval, a range or options, such as "
            "'label.temperature=tag(log,interval(1,20))'"
        )
    return fixed, space


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    sweep, line = override.value(), override.input_line
    assert isinstance(sweep, Sweep)  # noqa: S101 - it is a sweep
    log = "log" in sweep.tags
    if sweep.tags - {"log"}:
        raise ConfigError(f"{line}: the only tag is log, got {', '.join(sorted(sweep.tags))}")
    try:
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start, sweep.end
            kind = IntDistribution if isinstance(low, int) else FloatDistribution
            return kind(low, high, log=log)  # type: ignore[arg-type]
        if isinstance(sweep, RangeSweep):
            values = list(sweep.range())
            if not values:
                raise ConfigError(f"{line}: this range is empty")
            first, last, step = min(values), max(values), abs(sweep.step)
            if all(isinstance(value, int) for value in values):
                return IntDistribution(int(first), int(last), log=log, step=int(step))
            return FloatDistribution(first, last, log=log, step=float(step))
    except ValueError as error:
        raise ConfigError(f"{line}: {error}") from error
    if log:
        raise ConfigError(f"{line}: options have no logarithmic scale; use interval or range")
    if isinstance(sweep, ChoiceSweep):
        sweep.shuffle = False  # a search draws at random anyway
    return CategoricalDistribution(list(override.sweep_string_iterator()))
