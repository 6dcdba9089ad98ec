"""The sections in numbers: what was compared, the ranking, and what was left out."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from kdlit.report.content import Block, Items, Section, Table, Text
from kdlit.report.groups import Settings
from kdlit.report.ranking import Ranked
from kdlit.report.runs import Found, Run
from kdlit.report.statistics import Estimate
from kdlit.report.table import COLUMNS, mean_and_spread

MOST_ROWS = 200
_MOST_ITEMS = 50
# What a reader asks for first, of what stayed the same.
_OF_NOTE = (
    "data._target_",
    "data.train_size",
    "data.batch_size",
    "data.augment._target_",
    "student._target_",
    "teacher._target_",
    "teacher.network._target_",
    "label._target_",
    "label.temperature",
    "label.alpha",
    "optimizer._target_",
    "optimizer.lr",
    "scheduler._target_",
    "trainer.max_epochs",
    "trainer.precision",
)


def compared(found: Found, settings: Settings) -> Section:
    """Say what was compared: which runs, and what differs between their settings."""
    runs, ranked = found.runs, settings.ranked
    seeds = sorted({run.seed for run in runs})
    told = (
        f"{_count(len(runs), 'run')} in {_count(len(ranked), 'setting')}, on {runs[0].data_set}; "
        f"{_count(len(seeds), 'seed')} ({_shown(seeds[:20])}{', ...' if len(seeds) > 20 else ''}). "
        f"All figures are of the test set unless they say otherwise; {_selection(runs)}."
    )
    blocks: list[Block] = [Text(told)]
    blocks += _unlike(runs)
    repeated = sum(setting.repeated for setting in ranked)
    if repeated:
        blocks.append(
            Text(
                f"{_count(repeated, 'run')} repeated another with the same setting and seed: of "
                "those the last by its path counts."
            )
        )
    if settings.varied:
        rows = [
            (key, _values(values))
            for key, values in settings.varied.items()
            if any(value is not None for value in values)
        ]
        blocks.append(
            Table(
                "What differs between settings",
                ["key", "values"],
                rows[:MOST_ROWS],
                words=2,
                more=max(0, len(rows) - MOST_ROWS),
            )
        )
    else:
        blocks.append(Text("Nothing differs between the runs but the seed."))
    return Section("compared", "What was compared", blocks)


def fixed(settings: Settings) -> Section:
    """Show what stayed the same, what is asked for first and then all else."""
    note = [(key, _value(settings.fixed[key])) for key in _OF_NOTE if key in settings.fixed]
    blocks: list[Block] = [Table("The settings asked for most", ["key", "value"], note, words=2)]
    rest = [(key, _value(value)) for key, value in settings.fixed.items() if key not in _OF_NOTE]
    if rest:
        blocks.append(
            Table("All else that stayed fixed", ["key", "value"], rest, words=2, folded=True)
        )
    return Section("fixed", "What stayed fixed", blocks)


def _selection(runs: Sequence[Run]) -> str:
    """Say which students are the best on validation, as far as the runs tell."""
    found = [run.summary.get("selected") for run in runs]
    last = sum(not (isinstance(told, dict) and told.get("checkpoint")) for told in found)
    if not last:
        return "every student was selected on validation"
    return f"of {_count(last, 'run')} it is not known that the student was selected on validation"


def _unlike(runs: Sequence[Run]) -> list[Text]:
    """Say what is not the same in all runs, although no setting says so."""
    versions: dict[str, set[str]] = defaultdict(set)
    teachers: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        known = run.summary.get("versions")
        for package, version in known.items() if isinstance(known, dict) else ():
            versions[package].add(str(version))
        card = (run.summary.get("teacher") or {}).get("card")
        members = card.get("members", [card]) if isinstance(card, dict) else []
        for member in members:
            if member.get("recipe") and member.get("weights"):
                teachers[_value(member["recipe"])].add(member["weights"])
    told = [f"{name} {', '.join(sorted(v))}" for name, v in versions.items() if len(v) > 1]
    found = []
    if told:
        found.append(Text(f"The runs are of unlike versions: {'; '.join(told)}."))
    if any(len(weights) > 1 for weights in teachers.values()):
        found.append(
            Text(
                "Teachers of one recipe have unlike weights, as from several machines or versions: "
                "some of the difference between runs may be theirs."
            )
        )
    return found


def ranking(ranked: Sequence[Ranked]) -> Section:
    """Show the settings, the best first, and say what the numbers support."""
    blocks: list[Block] = []
    comparisons = sum(entry.p is not None for entry in ranked)
    claims = [entry.verdict + "." for entry in ranked if entry.claim]
    if claims:
        blocks.append(Items(claims[:_MOST_ITEMS], max(0, len(claims) - _MOST_ITEMS)))
    elif any(entry.baseline is not None for entry in ranked):
        blocks.append(Text("No difference from a baseline is supported by these runs."))
    elif len(ranked) > 1:
        blocks.append(
            Text("There is nothing to compare these settings with: --baseline names one of them.")
        )
    told = (
        "Accuracy: mean and 95 % interval over seeds (Student's t). The seeds are the student's: "
        "what another teacher or another test set would change is not in the intervals. "
    )
    if comparisons:
        told += (
            "Difference: the setting less its baseline, in points of accuracy, seed by seed, with "
            "the 95 % interval of the mean; p is that of the paired t-test"
        )
        told += (
            f", adjusted after Holm for the {comparisons} comparisons. A difference is claimed "
            "where its own interval excludes 0 and the adjusted p is below 0.05."
            if comparisons > 1
            else ". A difference is claimed where the interval excludes 0."
        )
    if any(entry.accuracy.half is None for entry in ranked):
        told += " A single seed gives no interval and no claim."
    blocks.append(Text(told))
    others = [(name, *column) for name, column in COLUMNS.items() if column[0] != "accuracy"]
    others = [c for c in others if any(entry.setting.test(c[1]) for entry in ranked)]
    header = ["setting", "verdict", "accuracy, %", "seeds"]
    header += ["baseline", "difference", "p"] if comparisons else []
    rows = [
        [
            entry.setting.name,
            _short(entry),
            interval(entry.accuracy),
            str(entry.accuracy.n),
            *(_comparison(entry) if comparisons else ()),
        ]
        for entry in ranked[:MOST_ROWS]
    ]
    more = max(0, len(ranked) - MOST_ROWS)
    words = 2
    if comparisons:  # words to the left of numbers
        header.insert(2, header.pop(4))
        for row in rows:
            row.insert(2, row.pop(4))
        words = 3
    blocks.append(Table("Settings by mean accuracy", header, rows, words, more))
    if others:
        spread = [
            [
                e.setting.name,
                *(_spread(e.setting.test(key), scale, digits) for _, key, scale, digits in others),
            ]
            for e in ranked[:MOST_ROWS]
        ]
        blocks.append(
            Table(
                "Calibration, likelihood and agreement with the teacher, mean ± sample standard "
                "deviation over seeds",
                ["setting", *(name for name, *_ in others)],
                spread,
                more=more,
            )
        )
    return Section("ranking", "Ranking", blocks)


def left_out(found: Found) -> Section | None:
    """List the runs that no figure holds, and why; None if there are none."""
    blocks: list[Block] = []

    def listed(title: str, lines: Sequence[str]) -> None:
        if lines:
            blocks.append(Text(title))
            blocks.append(Items(lines[:_MOST_ITEMS], max(0, len(lines) - _MOST_ITEMS)))

    listed(
        f"{_count(len(found.broken), 'summary or folder', 'summaries or folders')} that cannot be "
        "used:",
        [f"{path}: {reason}" for path, reason in found.broken],
    )
    listed(
        f"{_count(len(found.unfinished), 'run')} without a summary, unfinished or failed:",
        [str(path) for path in found.unfinished],
    )
    listed(
        f"{_count(len(found.other_data), 'run')} on another data set than "
        f"{found.runs[0].data_set}, not to be compared with the rest:",
        [
            f"{run.folder}: {run.data_set}, accuracy {100 * (run.test('accuracy') or 0):.2f} %"
            for run in found.other_data
        ],
    )
    if found.teachers:
        blocks.append(Text(f"{_count(found.teachers, 'run')} trained a teacher alone."))
    return Section("left-out", "Left out", blocks) if blocks else None


def interval(found: Estimate, scale: float = 100.0, digits: int = 2) -> str:
    """Return a mean with its interval, or the mean where there is none.

    >>> interval(Estimate(0.95, 3, 0.01)), interval(Estimate(0.95, 1, None))
    ('95.00 ± 1.00', '95.00')
    """
    mean = f"{scale * found.mean:.{digits}f}"
    return mean if found.half is None else f"{mean} ± {scale * found.half:.{digits}f}"


def _comparison(entry: Ranked) -> list[str]:
    if entry.baseline is None:
        return ["", "", ""]
    name = entry.baseline.name
    if entry.apart:
        name += f" (differs in {', '.join(entry.apart)})"
    if entry.paired is None:
        return [name, "", ""]
    difference = entry.paired.difference
    sign = "+" if difference.mean >= 0 else ""
    return [name, sign + interval(difference), "" if entry.p is None else _p(entry.p)]


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _short(entry: Ranked) -> str:
    """Return the verdict as a cell, where the numbers stand beside it."""
    if not entry.claim or entry.paired is None:
        return entry.verdict
    return "better" if entry.paired.difference.mean > 0 else "worse"


def _spread(values: Sequence[float] | None, scale: float, digits: int) -> str:
    return mean_and_spread(values, scale, digits) if values else ""


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    return json.dumps(value)


def _values(values: Sequence[Any]) -> str:
    """Return different values, numbers in their order and what is not there last."""

    def place(value: Any) -> tuple[bool, float]:
        return value is None, value if isinstance(value, (int, float)) else 0.0

    told = list(dict.fromkeys(_value(value) for value in sorted(values, key=place)))
    return ", ".join(told[:12]) + (f", ... ({len(told)} values)" if len(told) > 12 else "")


def _shown(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
