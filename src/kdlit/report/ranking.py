"""Each setting against the baseline, and what may be said of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdlit.checks import did_you_mean
from kdlit.errors import ConfigError
from kdlit.report.groups import Setting
from kdlit.report.statistics import LEVEL, Estimate, Paired, estimate, holm, paired

BASELINE = "truth"


@dataclass(frozen=True)
class Ranked:
    """A setting, its accuracy, and how it compares with its baseline.

    Attributes:
        setting: the setting.
        accuracy: mean and interval over the seeds, as a fraction.
        baseline: what it is compared with; None for a baseline itself, or where there is none.
        apart: in what the two differ beside the label, by key or group.
        paired: the comparison by seed; None without a baseline or a common seed.
        p: adjusted after Holm for the number of comparisons.
        verdict: the sentence that the numbers support.
        claim: whether that sentence says that there is a difference.
    """

    setting: Setting
    accuracy: Estimate
    baseline: Setting | None
    apart: list[str]
    paired: Paired | None
    p: float | None
    verdict: str
    claim: bool


def rank(settings: Sequence[Setting], baseline: str | None = None) -> list[Ranked]:
    """Compare every setting with its baseline, in the order given.

    Args:
        settings: all of them.
        baseline: a setting's name, or a label in one word, of which each setting gets the one
            that is otherwise most like it; None is `truth`, where there is one.

    Raises:
        ConfigError: if there is no such setting.
    """
    candidates = _baselines(settings, baseline)
    chosen = [
        None if setting in candidates or not candidates else _most_alike(setting, candidates)
        for setting in settings
    ]
    by_seed = {id(s): dict(zip(s.seeds, s.test("accuracy") or [], strict=True)) for s in settings}
    found = [
        None if other is None else paired(by_seed[id(setting)], by_seed[id(other)])
        for setting, other in zip(settings, chosen, strict=True)
    ]
    adjusted = holm([None if result is None else result.p for result in found])
    comparisons = sum(p is not None for p in adjusted)
    ranked = []
    for setting, other, result, p in zip(settings, chosen, found, adjusted, strict=True):
        apart = [] if other is None else _differences(setting, other)
        verdict, claim = _verdict(setting, other, apart, result, p, comparisons, bool(candidates))
        accuracy = estimate(setting.test("accuracy") or [])
        ranked.append(Ranked(setting, accuracy, other, apart, result, p, verdict, claim))
    return ranked


def _baselines(settings: Sequence[Setting], name: str | None) -> list[Setting]:
    exact = [setting for setting in settings if setting.name == name]
    if exact:
        return exact
    same = [setting for setting in settings if setting.label == (name or BASELINE)]
    # The truth beside a feature objective is no baseline where there is the truth by itself.
    alone = [s for s in same if not any(key.startswith("feature.") for key in s.flat)]
    if name is not None and not same:
        known = {setting.name for setting in settings} | {setting.label for setting in settings}
        raise ConfigError(f"--baseline {name}: there is no such setting; {_few(name, known)}")
    return alone or same


def _few(name: str, known: set[str]) -> str:
    return did_you_mean(name, known) if len(known) <= 20 else f"there are {len(known)} settings"


def _differences(one: Setting, other: Setting) -> list[str]:
    """Return in what two settings differ beside label and feature objectives.

    That is keys, and of another option the group's alone, not all that the options have in them.
    """
    keys = [
        key
        for key in dict.fromkeys((*one.values, *other.values))
        if not key.startswith(("label.", "feature"))
        and one.values.get(key) != other.values.get(key)
    ]
    options = sorted(key.removesuffix("_target_") for key in keys if key.endswith("._target_"))
    told = (
        next((option[:-1] for option in options if key.startswith(option)), key) for key in keys
    )
    return list(dict.fromkeys(told))


def _most_alike(setting: Setting, candidates: Sequence[Setting]) -> Setting:
    return min(candidates, key=lambda other: len(_differences(setting, other)))


def _verdict(
    setting: Setting,
    other: Setting | None,
    apart: Sequence[str],
    result: Paired | None,
    p: float | None,
    comparisons: int,
    has_baseline: bool,
) -> tuple[str, bool]:
    """Return the sentence that a comparison supports, and whether it claims a difference."""
    if other is None:
        return ("the baseline" if has_baseline else "no baseline to compare with"), False
    if result is None:
        return "no seed in common with the baseline", False
    seeds = result.difference.n
    if seeds < 2:
        return "too few seeds", False
    if result.p is None:
        if abs(result.difference.mean) < 1e-6:
            return "the same in every seed", False
        return f"the same difference in all {seeds} seeds: no noise to compare it with", False
    if not result.difference.excludes_zero:
        return "no difference beyond the noise", False
    if p is None or p >= 1 - LEVEL:
        return (
            f"no difference beyond the noise, once all {comparisons} comparisons are accounted for",
            False,
        )
    mean, half = result.difference.mean, result.difference.half or 0.0
    verb = "beats" if mean > 0 else "is worse than"
    return (
        f"{setting.name} {verb} {other.name} by {100 * abs(mean):.2f} ± {100 * half:.2f} points "
        f"({100 * LEVEL:.0f} % interval {100 * (mean - half):.2f} to {100 * (mean + half):.2f}, "
        f"{seeds} seeds)" + (f"; the two differ in {', '.join(apart)}, too" if apart else "")
    ), True
