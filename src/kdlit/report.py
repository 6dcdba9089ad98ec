"""Many runs in one table: what differs between them, and mean and spread over seeds."""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdlit.errors import ConfigError, KdlitError

# What differs between any two runs and says nothing of the method.
_NOT_COMPARED = ("seed", "data.seed", "run_dir", "ckpt_path", "cache_dir", "logger.", "callbacks.")
_COLUMNS = {
    "accuracy, %": ("accuracy", 100.0, 2),
    "agreement, %": ("agreement", 100.0, 2),
    "ECE, %": ("ece", 100.0, 2),
    "NLL": ("nll", 1.0, 4),
}


def find_summaries(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Read the `summary.json` of every distillation run below the folders.

    Raises:
        ConfigError: if there is none, or one that cannot be read.
    """
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("summary.json")):
            try:
                summary = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path} cannot be read: {error}") from error
            if summary.get("task") == "distil":
                found.append(summary)
    if not found:
        raise ConfigError(f"there is no summary.json below {', '.join(map(str, folders))}")
    return found


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _settings(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings, without what only names the run."""
    run_dir = str(summary["config"]["run_dir"])
    return {
        key: value
        for key, value in _flat(summary["config"]).items()
        if not key.startswith(_NOT_COMPARED)
        and not (isinstance(value, str) and value.startswith(run_dir))
    }


def compare(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group runs that differ in their seed alone, best mean accuracy first.

    Returns:
        One entry per group: `settings` (what differs between groups), `seeds`, and under `values`
        each metric's list over the seeds, in order of seed.
    """
    flats = [_settings(summary) for summary in summaries]
    keys = [
        key
        for key in dict.fromkeys(key for flat in flats for key in flat)
        if len({json.dumps(flat.get(key)) for flat in flats}) > 1
    ]
    # Of runs that were repeated with the same seed one counts: they are the same number.
    groups: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for summary, flat in zip(summaries, flats, strict=True):
        group = json.dumps({key: flat[key] for key in keys if key in flat})
        groups[group][summary["seed"]] = summary
    rows = []
    for settings, by_seed in groups.items():
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        values = {
            name: [run["student"]["test"][name] for run in runs]
            for name, _, _ in _COLUMNS.values()
            if all(name in run["student"]["test"] for run in runs)
        }
        rows.append({"settings": json.loads(settings), "seeds": sorted(by_seed), "values": values})
    return sorted(rows, key=lambda row: -statistics.fmean(row["values"]["accuracy"]))


def mean_and_spread(values: Sequence[float], scale: float, digits: int) -> str:
    """Return `mean ± sample standard deviation`, or the value where there is one.

    >>> mean_and_spread([0.97, 0.98, 0.99], 100, 2)
    '98.00 ± 1.00'
    """
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean + (f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of :func:`compare` in Markdown."""
    columns = [
        name for name, (key, _, _) in _COLUMNS.items() if any(key in r["values"] for r in rows)
    ]
    lines = [
        f"| setting | seeds | {' | '.join(columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for row in rows:
        cells = []
        for name in columns:
            key, scale, digits = _COLUMNS[name]
            values = row["values"].get(key)
            cells.append(mean_and_spread(values, scale, digits) if values else "")
        lines.append(f"| {_name(row['settings'])} | {len(row['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _name(settings: dict[str, Any]) -> str:
    """Return short words for what distinguishes a group."""
    words: list[str] = []
    for key, value in settings.items():
        last = key.rsplit(".", 1)[-1]
        if last == "_target_":
            words.insert(0, str(value).rsplit(".", 1)[-1])
        elif value is not None:
            words.append(f"{last} {value}")
    return ", ".join(words) or "all runs"


def main() -> None:
    """Print the table of the folders on the command line."""
    parser = argparse.ArgumentParser(
        description="Compare runs: mean ± sample standard deviation over seeds, on the test set."
    )
    parser.add_argument("folder", type=Path, nargs="+", help="folders with runs or sweeps below")
    try:
        print(markdown(compare(find_summaries(parser.parse_args().folder))))
    except KdlitError as error:
        print(f"kdlit: {error}", file=sys.stderr)
        sys.exit(1)
