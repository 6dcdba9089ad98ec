"""Every method in one setting, over seeds, in one table: `scripts/compare.py`."""

import argparse
import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kdlit.app import train
from kdlit.app.cli import typed
from kdlit.errors import ConfigError
from kdlit.files import write_atomically
from kdlit.report import mean_and_spread

# Every label strategy by itself, and every feature objective beside the ground truth, but the one
# for trees; SimKD, whose paper has no other loss, by itself. Then soft labels from other sources
# than one frozen teacher.
SWEEPS: Mapping[str, Sequence[str]] = {
    "label strategies": ["label=glob(*,exclude=none)"],
    "feature objectives": ["label=truth", "feature=glob(*,exclude=[simkd,soft_tree])"],
    "SimKD": ["label=none", "feature=simkd"],
    "chains of teachers": ["experiment=takd,born_again"],
    "ensemble of three teachers": ["label=soft", "teacher=ensemble"],
    "average of the student": [
        "label=soft",
        "label.temperature=1",
        "label.alpha=0.5",
        "teacher=ema",
    ],
}

_CHOICES = ("label", "feature=", "teacher=", "experiment=")

_Value = Callable[[Mapping[str, Any]], float | None]
_COLUMNS: Mapping[str, tuple[_Value, float, int]] = {
    "accuracy, %": (lambda run: run["student"]["test"]["accuracy"], 100, 2),
    "agreement, %": (lambda run: run["student"]["test"].get("agreement"), 100, 2),
    "ECE, %": (lambda run: run["student"]["test"]["ece"], 100, 2),
    "s/epoch": (lambda run: run["seconds"]["fit"] / run["epochs"], 1, 2),
}


def main() -> None:
    """Run the sweeps that the command line asks for, and write the table."""
    parser = argparse.ArgumentParser(
        description="Run every method in one setting over seeds, and write the table."
    )
    parser.add_argument("overrides", nargs="*", help="the setting, such as data.train_size=500")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (default: %(default)s)")
    parser.add_argument("--sweeps", type=Path, default=Path("sweeps/comparison"))
    parser.add_argument("--out", type=Path, default=Path("docs/comparison.md"))
    parser.add_argument("--table", action="store_true", help="write the table of what has been run")
    parser.add_argument("--only", nargs=1, choices=SWEEPS, help="run one of the sweeps")
    asked = parser.parse_args()
    failed, command = [], typed("compare")
    for name in () if asked.table else asked.only or SWEEPS:
        chosen, folder = SWEEPS[name], asked.sweeps / name.replace(" ", "_")
        argv = ["-m", *chosen, f"seed={asked.seeds}", *asked.overrides, f"hydra.sweep.dir={folder}"]
        if not train.call(argv, command):
            failed.append(name)
    try:
        text = document(asked.sweeps, asked.overrides)
    except ConfigError as error:
        print(f"kdlit: {error}", file=sys.stderr)
        sys.exit(1)
    write_atomically(asked.out, lambda path: path.write_text(text, encoding="utf-8"))
    print(f"Written to {asked.out}")
    if failed:
        print(f"kdlit: runs failed in {', '.join(failed)}; see above", file=sys.stderr)
        sys.exit(1)


def read_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the summaries of a sweep's runs by what was overridden, the seed left out."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*/summary.json")):
        overrides = OmegaConf.load(path.parent / ".hydra" / "overrides.yaml")
        chosen = [str(line) for line in overrides if str(line).startswith(_CHOICES)]
        groups[" ".join(chosen)].append(json.loads(path.read_text(encoding="utf-8")))
    return dict(groups)


def document(sweeps: Path, overrides: Sequence[str]) -> str:
    """Return the comparison as Markdown.

    Raises:
        ConfigError: if there are no runs.
    """
    tables = []
    first: dict[str, Any] | None = None
    for name in SWEEPS:
        groups = read_runs(sweeps / name.replace(" ", "_"))
        if groups:
            first = first or next(iter(groups.values()))[0]
            tables.append(f"## {name[0].upper()}{name[1:]}\n\n{table(groups)}")
    if first is None:
        raise ConfigError(f"there are no runs below {sweeps}")
    config, teacher = first["config"], first["teacher"]
    setting = " ".join(overrides) or "the defaults of `conf/`"
    return (
        "# Every method in one setting\n\n"
        f"Written by `python scripts/compare.py`, setting: {setting}. Student: "
        f"{first['student']['type']}, {first['student']['training_samples']:,} images, "
        f"{config['trainer']['max_epochs']} epochs; teacher: {teacher['type']}, "
        f"{100 * teacher['test']['accuracy']:.2f} % on test. Mean ± sample standard deviation over "
        "the seeds, on the test set; every student selected on validation. Seconds per epoch with "
        f"validation, on {os.cpu_count()} cores ({first['device']['name']}). Parameters are those "
        "of the network that is shipped; what is trained beside it belongs to the objective.\n\n"
        + "\n\n".join(tables)
        + "\n"
    )


def table(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return one sweep's table, best mean accuracy first."""
    header = ["method", "seeds", *_COLUMNS, "parameters", "trained beside"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]

    def accuracy(item: tuple[str, Sequence[Mapping[str, Any]]]) -> float:
        return statistics.fmean(run["student"]["test"]["accuracy"] for run in item[1])

    for name, runs in sorted(groups.items(), key=accuracy, reverse=True):
        cells = [f"`{name}`", ", ".join(str(seed) for seed in sorted(r["seed"] for r in runs))]
        for value, scale, digits in _COLUMNS.values():
            values = [value(run) for run in runs]
            known = [number for number in values if number is not None]
            whole = len(known) == len(values)
            cells.append(mean_and_spread(known, scale, digits) if whole else "")
        student = runs[0]["student"]
        cells += [f"{student['parameters']:,}", f"{student['extra_parameters']:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
