"""The results as Markdown: who took how long, and which targets are met."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contenders import COMMON, LOOPS, RUNS, SETTINGS, STARTUPS

Repetition = Mapping[str, Any]
MET, MISSED = "yes", "**no**"


@dataclass(frozen=True)
class Target:
    """How large the ratio of two contenders may be.

    Attributes:
        title: what is compared, in words.
        over: the contender above the line.
        under: the contender below the line.
        limit: the most that the ratio may be; None if it is only of interest.
        quantity: what is compared of a repetition; see `_value`.
        quantity_under: the same of the contender below the line, if it is another.
    """

    title: str
    over: str
    under: str
    limit: float | None
    quantity: str = "seconds"
    quantity_under: str | None = None


TARGETS = (
    Target("kdlit / the article's loop", "kdlit", "article", 0.28),
    Target("kdlit / bare loop with a live teacher", "kdlit", "bare-live", 0.35),
    Target("kdlit / bare loop without a teacher", "kdlit", "bare-student", 0.52),
    Target("kdlit / torchdistill", "kdlit", "torchdistill", 0.30),
    Target(
        "kdlit with a large teacher / kdlit without one", "kdlit-large-teacher", "kdlit-truth", 1.05
    ),
    Target(
        "computing the teacher's outputs / bare evaluation",
        "kdlit-filling", "bare-evaluation", 1.10, "fill_seconds", "seconds",
    ),
    Target(
        "kdlit without a teacher / bare steps, per step",
        "kdlit-truth", "bare-step", 1.10, "training_seconds_per_step",
    ),
    Target(
        "the same, validation and checkpoints included",
        "kdlit-truth", "bare-step", None, "seconds_per_step",
    ),
    Target("`--help` / its imports", "help", "import", 1.25),
    Target("peak memory: kdlit / the article's loop", "kdlit", "article", 1.20, "peak_mib"),
)  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """What became of a target.

    Attributes:
        target: the target.
        ratio: of the medians; None if a contender was not measured.
        rounds: the ratio within each round that has both contenders.
    """

    target: Target
    ratio: float | None
    rounds: Sequence[float]

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.ratio is None:
            return "not measured"
        if self.target.limit is None:
            return ""
        return MET if self.ratio <= self.target.limit else MISSED


def ratios(repetitions: Sequence[Repetition]) -> list[Ratio]:
    """Return what became of every target."""
    found = []
    for target in TARGETS:
        over = _by_round(repetitions, target.over, target.quantity)
        under = _by_round(repetitions, target.under, target.quantity_under or target.quantity)
        both = sorted(over.keys() & under.keys())
        ratio = _median(over) / _median(under) if both else None
        found.append(Ratio(target, ratio, [over[number] / under[number] for number in both]))
    return found


def _median(values: Mapping[int, float]) -> float:
    return statistics.median(values.values())


def _value(repetition: Repetition, quantity: str) -> float | None:
    """Return a quantity of a repetition, if it has it; `..._per_step` is divided by its steps."""
    value = repetition.get(quantity.removesuffix("_per_step"))
    if value is None or not quantity.endswith("_per_step"):
        return value
    return float(value / repetition["steps"])


def _by_round(repetitions: Sequence[Repetition], name: str, quantity: str) -> dict[int, float]:
    values = {r["round"]: _value(r, quantity) for r in repetitions if r["name"] == name}
    return {number: value for number, value in values.items() if value is not None}


# Markdown ----------------------------------------------------------------------------------


def document(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    repetitions = results["repetitions"]
    found = ratios(repetitions)
    parts = [
        "# One epoch of soft distillation",
        _introduction(results),
        "## Targets",
        _verdicts(found, trial=results["trial"]),
        _ratio_table(found),
        "## Contenders",
        _contender_table(repetitions, {**LOOPS, **RUNS}),
        _settings_table(repetitions),
        "## Starting",
        _contender_table(repetitions, STARTUPS, only_seconds=True),
    ]
    if results["failures"]:
        told = [f"- {name}: `{reason}`" for name, reason in results["failures"].items()]
        parts += ["## Failed", "\n".join(told)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(results: Mapping[str, Any]) -> str:
    machine, prepared = results["machine"], results["prepared"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    count = prepared["images"]
    images = "all 55,000 training images" if count is None else f"a trial with {count:,} images"
    rounds = results["rounds"]
    told = (
        f"Written by `python benchmarks/epoch.py` on {results['date']}: {images}, {rounds} "
        f"round{'s' if rounds > 1 else ''}. What is in the seconds and what is not, README.md in "
        f"`benchmarks/` says. Machine: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads'] or 'unknown'} torch threads; {versions}."
    )
    if "large_teacher" in prepared:
        large, student = prepared["large_teacher"], prepared["student"]
        times = {key: large[key] / student[key] for key in ("parameters", "multiply_adds")}
        told += (
            f" The large teacher has {large['parameters']:,} parameters and "
            f"{large['multiply_adds']:,} multiply-adds for an image, {times['parameters']:.0f} and "
            f"{times['multiply_adds']:.0f} times the student's."
        )
    return told


def _verdicts(found: Sequence[Ratio], *, trial: bool) -> str:
    """Say which targets are met, and plainly which are not."""
    asked = [ratio for ratio in found if ratio.target.limit is not None]
    missed = [ratio for ratio in asked if ratio.verdict == MISSED]
    unmeasured = [ratio for ratio in asked if ratio.ratio is None]
    met = len(asked) - len(missed) - len(unmeasured)
    told = [f"{met} of {len(asked)} targets are met."]
    if trial:
        told = [
            "The targets are for all images and all contenders: a trial decides none. " + told[0]
        ]
    if missed:
        told.append("**Missed:**\n")
        told += [
            f"- {one.target.title}: {one.ratio:.3f} where at most {one.target.limit:.2f} is wanted"
            for one in missed
        ]
    if unmeasured:
        told.append("\nNot measured: " + "; ".join(one.target.title for one in unmeasured) + ".")
    return "\n".join(told)


def _ratio_table(found: Sequence[Ratio]) -> str:
    lines = [
        "| ratio of medians | | in each round, [min, max] | target | met |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        ratio = "" if one.ratio is None else f"{one.ratio:.3f}"
        spread = f"[{min(one.rounds):.3f}, {max(one.rounds):.3f}]" if one.rounds else ""
        limit = "" if one.target.limit is None else f"≤ {one.target.limit:.2f}"
        lines.append(f"| {one.target.title} | {ratio} | {spread} | {limit} | {one.verdict} |")
    return "\n".join(lines)


def _contender_table(
    repetitions: Sequence[Repetition], told: Mapping[str, str], *, only_seconds: bool = False
) -> str:
    columns = ["", "what", "seconds, median [min, max]"]
    columns += [] if only_seconds else ["peak memory, MiB", "test accuracy, %"]
    lines = []
    for name, description in told.items():
        own = [repetition for repetition in repetitions if repetition["name"] == name]
        if not own:
            continue
        cells = [f"`{name}`", description, _seconds(own)]
        if not only_seconds:
            cells += [f"{statistics.median(r['peak_mib'] for r in own):.0f}", _accuracy(own)]
        lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines])


def _settings_table(repetitions: Sequence[Repetition]) -> str:
    """Return what each run of kdlit was asked for, and how accurate it is at its speed."""
    lines = []
    for name, overrides in SETTINGS.items():
        own = [repetition for repetition in repetitions if repetition["name"] == name]
        if own:
            asked = f"`{' '.join(overrides)}`"
            lines.append(f"| `{name}` | {asked} | {_seconds(own)} | {_accuracy(own)} |")
    if not lines:
        return ""
    return "\n".join(
        [
            f"Every run of kdlit: `{' '.join(COMMON)}`, and:",
            "",
            "| | settings | seconds, median [min, max] | test accuracy, % |",
            "|---|---|---|---|",
            *lines,
        ]
    )


def _seconds(own: Sequence[Repetition]) -> str:
    values = [repetition["seconds"] for repetition in own]
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def _accuracy(own: Sequence[Repetition]) -> str:
    """Return mean and sample standard deviation; one repetition has no deviation."""
    values = [100 * r["accuracy"] for r in own if r.get("accuracy") is not None]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"
