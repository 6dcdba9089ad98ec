"""The runs below some folders: those that can be compared, and why the others cannot."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdlit.errors import ConfigError

SUMMARY_FILE = "summary.json"
METRICS_FILE = "metrics.csv"
EVALUATION_FILE = "evaluation.json"
_CONFIG_FILES = ("config.yaml", ".hydra/config.yaml")


@dataclass(frozen=True)
class Run:
    """A finished distillation.

    Attributes:
        folder: the run's directory.
        summary: its `summary.json`.
    """

    folder: Path
    summary: dict[str, Any]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.summary["seed"])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        config: dict[str, Any] = self.summary["config"]
        return config

    @property
    def data_set(self) -> str:
        """The name of the data set, which decides what the test set is."""
        target = str((self.config.get("data") or {}).get("_target_", ""))
        return target.rsplit(".", 1)[-1].removesuffix("DataModule") or "unknown"

    def test(self, metric: str, who: str = "student") -> float | None:
        """Return a test metric of the student or the teacher, or None without it."""
        value = ((self.summary.get(who) or {}).get("test") or {}).get(metric)
        return float(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True)
class Found:
    """What lies below the folders.

    Attributes:
        runs: distillations on one data set, in order of their paths.
        broken: summaries and folders that cannot be read, with the reason.
        unfinished: run directories without a summary.
        other_data: runs on another data set than most.
        teachers: how many runs trained a teacher alone.
    """

    runs: list[Run]
    broken: list[tuple[Path, str]] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    other_data: list[Run] = field(default_factory=list)
    teachers: int = 0


def read_runs(folders: Sequence[Path]) -> Found:
    """Read every run below the folders.

    Raises:
        ConfigError: if a folder is not there, or if there is no finished run.
    """
    runs, teachers = [], 0
    broken: list[tuple[Path, str]] = []
    unfinished = []
    for folder in _directories(folders, broken):
        path = folder / SUMMARY_FILE
        if not path.is_file():
            if any((folder / name).is_file() for name in _CONFIG_FILES):
                unfinished.append(folder)
            continue
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            broken.append((path, f"cannot be read: {error}"))
            continue
        if isinstance(summary, dict) and summary.get("task") == "teacher":
            teachers += 1
            continue
        reason = _what_is_wrong(summary)
        if reason is None:
            runs.append(Run(folder, summary))
        else:
            broken.append((path, reason))
    if not runs:
        also = ", ".join(
            f"{len(found)} {name}"
            for found, name in ((broken, "broken"), (unfinished, "unfinished"))
            if found
        )
        raise ConfigError(
            f"there is no summary.json of a finished run below {', '.join(map(str, folders))}"
            + (f" ({also})" if also else "")
        )
    counts = Counter(run.data_set for run in runs)
    most = counts.most_common(1)[0][0]
    return Found(
        [run for run in runs if run.data_set == most],
        broken,
        unfinished,
        [run for run in runs if run.data_set != most],
        teachers,
    )


def find_summaries(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the `summary.json` of every finished distillation below the folders.

    Raises:
        ConfigError: if there is none, or one that cannot be read.
    """
    found = read_runs(list(folders))
    for path, reason in found.broken:
        raise ConfigError(f"{path} {reason}")
    return [run.summary for run in (*found.runs, *found.other_data)]


def _directories(folders: Sequence[Path], broken: list[tuple[Path, str]]) -> list[Path]:
    """Return the folders and all below them, each once, in order; add those that are closed."""
    found: dict[str, Path] = {}

    def closed(error: OSError) -> None:
        broken.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}, and so no summary.json below it")
        for root, names, _ in os.walk(folder, onerror=closed):
            names[:] = sorted(name for name in names if name != ".hydra")
            found.setdefault(os.path.realpath(root), Path(root))
    return list(found.values())


def _what_is_wrong(summary: Any) -> str | None:
    """Return why a summary cannot be compared, or None."""
    if not isinstance(summary, dict) or summary.get("task") != "distil":
        return "is no summary of train.py"
    config = summary.get("config")
    if not isinstance(config, dict) or not isinstance(summary.get("seed"), int):
        return "has no config or no seed"
    for key in ("data", "label"):
        node = config.get(key) or {}
        if not isinstance(node, dict) or not isinstance(node.get("_target_", ""), str):
            return f"has a config whose {key} cannot be read"
    student, teacher = summary.get("student"), summary.get("teacher")
    test = student.get("test") if isinstance(student, dict) else None
    if not isinstance(test, dict) or not _is_number(test.get("accuracy")):
        return "has no accuracy of the student on the test set"
    wrong = _what_is_wrong_with(student, "student")
    return wrong if wrong or teacher is None else _what_is_wrong_with(teacher, "teacher")


def _what_is_wrong_with(network: Any, who: str) -> str | None:
    """Return why what a summary says of a network cannot be read, or None."""
    test = (network.get("test") or {}) if isinstance(network, dict) else None
    if not isinstance(test, dict):
        return f"has a {who} that cannot be read"
    for name, value in test.items():
        if not _is_number(value):
            return f"has {value} as the {who}'s {name} on the test set"
    bins = network.get("reliability") or []
    keys = ("confidence", "accuracy", "count")
    if not isinstance(bins, list) or not all(
        isinstance(entry, dict) and all(_is_number(entry.get(key)) for key in keys)
        for entry in bins
    ):
        return f"has reliability bins of the {who} that cannot be read"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
