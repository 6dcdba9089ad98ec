"""Settings: runs that differ in their seed alone, and what distinguishes them from others."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kdlit.report.runs import Run

# What differs between any two runs, or says where things lie, and nothing of the method.
_NOT_COMPARED = (
    "seed",
    "data.seed",
    "run_dir",
    "ckpt_path",
    "cache_dir",
    "logger.",
    "callbacks.",
    "data.root",
    "teacher.data.root",
    "cache.folder",
)


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in their seed alone.

    Attributes:
        values: what distinguishes the setting from the others, by dotted key.
        name: the same in short words.
        runs: one run for each seed, in order of seed.
        repeated: how many more runs there are with a seed that another run has, too.
    """

    values: dict[str, Any]
    name: str
    runs: list[Run] = field(repr=False)
    repeated: int = 0

    @cached_property
    def label(self) -> str:
        """The label strategy in one word, such as `soft`."""
        return label_word(self.flat.get("label._target_", ""))

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The whole configuration by dotted keys, without what only names the run."""
        return settings_of(self.runs[0].summary)

    @property
    def seeds(self) -> list[int]:
        """The seeds."""
        return [run.seed for run in self.runs]

    def test(self, metric: str) -> list[float] | None:
        """Return a test metric for each seed, or None if a run lacks it."""
        found = [run.test(metric) for run in self.runs]
        known = [value for value in found if value is not None]
        return known if len(known) == len(found) else None

    @cached_property
    def accuracy(self) -> float:
        """The mean accuracy on the test set."""
        return statistics.fmean(self.test("accuracy") or [])


@dataclass(frozen=True)
class Settings:
    """All settings, the best mean accuracy first.

    Attributes:
        ranked: the settings.
        varied: the values that each key takes, for keys that differ between runs.
        fixed: the keys that are the same in all runs.
    """

    ranked: list[Setting]
    varied: dict[str, list[Any]]
    fixed: dict[str, Any]


def label_word(target: str) -> str:
    """Return a label strategy's class as a word.

    >>> label_word("kdlit.objectives.SoftLabels")
    'soft'
    """
    return target.rsplit(".", 1)[-1].removesuffix("Labels").lower()


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping by dotted keys.

    >>> flat({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    found: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + str(name)] = value
    return found


def settings_of(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings by dotted keys, without what only names the run."""
    run_dir = str(summary["config"].get("run_dir"))
    return {
        key: value
        for key, value in flat(summary["config"]).items()
        if not key.startswith(_NOT_COMPARED)
        and not (isinstance(value, str) and value.startswith(run_dir))
    }


def group(runs: Sequence[Run]) -> Settings:
    """Group runs that differ in their seed alone, the best mean accuracy first."""
    flats = [settings_of(run.summary) for run in runs]
    texts = [{key: as_text(value) for key, value in flat.items()} for flat in flats]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    varied: dict[str, list[Any]] = {}
    for key in keys:
        values = {text.get(key): flat.get(key) for text, flat in zip(texts, flats, strict=True)}
        if len(values) > 1:
            varied[key] = list(values.values())
    # Of runs that were repeated with the same seed one counts: they are the same number.
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    counts: Counter[str] = Counter()
    values_of: dict[str, dict[str, Any]] = {}
    for run, found, text in zip(runs, flats, texts, strict=True):
        name = json.dumps([text.get(key) for key in varied])
        values_of.setdefault(name, {key: found[key] for key in varied if key in found})
        groups[name][run.seed] = run
        counts[name] += 1
    ranked = [
        Setting(values, name, [seeds[seed] for seed in sorted(seeds)], counts[key] - len(seeds))
        for (key, seeds), values, name in zip(
            groups.items(), values_of.values(), names([*values_of.values()]), strict=True
        )
    ]
    fixed = {key: flats[0][key] for key in keys if key not in varied}
    return Settings(sorted(ranked, key=lambda setting: -setting.accuracy), varied, fixed)


def as_text(value: Any) -> str:
    """Return a value's text, the same for 4 and 4.0.

    >>> as_text(4), as_text(True), as_text([4])
    ('4.0', 'true', '[4]')
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    return json.dumps(float(value) if whole else value)


def group_summaries(summaries: Sequence[dict[str, Any]]) -> list[Setting]:
    """Group summaries without their places."""
    return group([Run(Path(), summary) for summary in summaries]).ranked


def names(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return short words for what distinguishes each setting, no two the same.

    What goes with an option, such as the temperature where all soft labels have the same, is left
    out.

    >>> label = "label._target_"
    >>> names([{label: "x.SoftLabels", "label.alpha": 0.9}, {label: "x.TruthLabels"}])
    ['soft', 'truth']
    """
    if len(settings) == 1:
        return ["all runs"]
    implied = {key for key in {key for s in settings for key in s} if _is_implied(key, settings)}
    told = [_words(values, implied) for values in settings]
    for last_resort in (_all_words, lambda values: json.dumps(values, sort_keys=True)):
        count = Counter(told)
        told = [
            last_resort(values) if count[name] > 1 else name
            for name, values in zip(told, settings, strict=True)
        ]
    return told


def _is_implied(key: str, settings: Sequence[dict[str, Any]]) -> bool:
    """Return whether a key's value follows from the option that it belongs to."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        target = ".".join([*parts[:length], "_target_"])
        if target == key or not any(target in values for values in settings):
            continue
        seen: dict[str, set[str]] = defaultdict(set)
        for values in settings:
            seen[str(values.get(target))].add(as_text(values.get(key)))
        if all(len(values) == 1 for values in seen.values()):
            return True
    return False


def _words(values: dict[str, Any], implied: set[str]) -> str:
    words: list[str] = []
    for key, value in values.items():
        if key in implied or value is None or value == []:
            continue
        last = key.rsplit(".", 1)[-1]
        if last == "seed":  # not the run's
            last = key.replace(".", " ")
        if key == "label._target_":
            words.insert(0, label_word(str(value)))
        elif last == "_target_":
            words.append(str(value).rsplit(".", 1)[-1])
        else:
            words.append(f"{last} {value:g}" if isinstance(value, float) else f"{last} {value}")
    if not words:  # the values that have no words, or the keys that others have
        words = [f"{key.rsplit('.', 1)[-1]} null" for key in values if key not in implied]
    return ", ".join(words) or "plain"


def _all_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "plain"
