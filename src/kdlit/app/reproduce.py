"""An experiment and its table by one command: `scripts/reproduce.py`, `kdlit-reproduce`."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import get_method

from kdlit.app import train
from kdlit.app.cli import called_as
from kdlit.app.experiments import Experiment, experiments
from kdlit.errors import ConfigError, KdlitError
from kdlit.files import is_writable, write_atomically, write_json
from kdlit.report.papers import tabulate
from kdlit.report.papers_page import markdown
from kdlit.report.papers_picture import pictures

_DESCRIPTION = """\
Run an experiment, a sweep over seeds for each cell of its table, and write the table as
JSON and Markdown, with its picture where it has one. Runs that are finished are not
repeated: the same command goes on with what was interrupted, and further seeds join
those that have been run."""
_EXAMPLES = """\
examples:
  python scripts/reproduce.py few_labels
  python scripts/reproduce.py few_labels --seeds 3,4
  python scripts/reproduce.py few_labels --size quick trainer=cpu"""


def main() -> None:
    """Run the experiment that the command line names, and write its table."""
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", help=f"one of {', '.join(experiments())}")
    add("overrides", nargs="*", help="further settings of every run, as for train.py")
    add("--size", default="full", help="quick or full (default: %(default)s)")
    add("--seeds", help="comma-separated (default: the experiment's)")
    add("--sweeps", type=Path, default=Path("sweeps/papers"), help="where the runs go")
    add("--out", type=Path, help="where to write (default: docs/results; the runs' if not full)")
    add("--table", action="store_true", help="write the table of what has been run")
    try:
        failed = _reproduce(parser.parse_intermixed_args())
    except (KdlitError, OSError) as error:
        print(f"kdlit: {error}", file=sys.stderr)
        sys.exit(1)
    if failed:
        print(f"kdlit: runs failed in {'; '.join(failed)}: see above", file=sys.stderr)
        sys.exit(1)


def _reproduce(asked: argparse.Namespace) -> list[str]:
    """Run and write; return the cells in which a run failed."""
    experiment = Experiment.read(asked.name, asked.size)
    seeds = ",".join(map(str, experiment.seeds)) if asked.seeds is None else asked.seeds
    if not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise ConfigError(f"--seeds {seeds}: numbers with commas between are needed, such as 0,1,2")
    runs: Path = asked.sweeps / asked.name / asked.size
    out: Path = asked.out or (Path("docs/results") if asked.size == "full" else runs)
    if not is_writable(out):
        raise ConfigError(f"{out} cannot be written: --out names another folder for the table")
    failed = []
    for row, column in () if asked.table else experiment.cells:
        overrides = [*experiment.overrides(row, column), f"seed={seeds}", *asked.overrides]
        folder = _folder(runs, row, column) / f"seeds-{seeds.replace(',', '-')}"
        if not train.call(["-m", *overrides, f"hydra.sweep.dir={folder}"]):
            failed.append(f"{row}, {column}")
    folders = {cell: _runs(_folder(runs, *cell)) for cell in experiment.cells}
    runs_of = {
        cell: [_read(folder, experiment.after) for folder in folders[cell]] for cell in folders
    }
    found = {
        (row, column): runs_of[row, experiment.of(column)]
        for row in experiment.rows
        for column in experiment.columns
        if runs_of[row, experiment.of(column)]
    }
    if not found:
        raise ConfigError(f"there are no runs below {runs}: leave out --table to make them")
    words = [*called_as("reproduce"), asked.name]
    words += [] if asked.size == "full" else ["--size", asked.size]
    told = {"name": asked.name, "size": asked.size, "rows": dict(experiment.rows)}
    told |= {"columns": dict(experiment.columns), "settings": list(experiment.settings)}
    command = shlex.join([*words, *asked.overrides])
    result = tabulate({**told, "command": command}, experiment.text, experiment.places, found)
    result["shown"] = _show(out, experiment, folders)
    _write(out, result)
    return failed


def _folder(runs: Path, row: str, column: str) -> Path:
    """Return the directory of a cell, of letters that need no quotes in Hydra's grammar.

    >>> _folder(Path("few"), "6,000", "T = 2.5").as_posix()
    'few/6000/T_2.5'
    """
    names = (re.sub(r"[^\w.]+", "_", name.replace(",", "")) for name in (row, column))
    return runs.joinpath(*names)


def _runs(cell: Path) -> list[Path]:
    """Return the directories of a cell's finished runs in order of their seeds, one of each."""
    by_seed = {_summary(path.parent)["seed"]: path.parent for path in cell.glob("*/*/summary.json")}
    return [by_seed[seed] for seed in sorted(by_seed)]


def _summary(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return summary


def _read(run: Path, after: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a run's summary with what is measured of the finished run, once."""
    summary = _summary(run)
    for name, asked in after.items():
        kept = run / f"{name}.json"
        options = {key: value for key, value in asked.items() if key != "function"}
        if not kept.is_file():
            write_json(kept, get_method(asked["function"])(run, **options))
        summary[name] = json.loads(kept.read_text(encoding="utf-8"))
    return summary


def _show(
    out: Path, experiment: Experiment, folders: Mapping[tuple[str, str], Sequence[Path]]
) -> list[dict[str, str]]:
    """Draw the pictures of single runs; return what the page says of each."""
    shown = []
    for show in experiment.shows:
        runs = folders[show["row"], experiment.of(show["column"])]
        if runs:
            name = f"{experiment.name}_{show['draw'].split('.')[-2]}.png"
            draw_run = partial(get_method(show["draw"]), run_dir=runs[0])
            write_atomically(out / name, draw_run)
            shown.append({"file": name, "title": show["title"], "text": show["text"]})
    return shown


def _write(out: Path, result: dict[str, Any]) -> None:
    """Write the table, and its pictures where it has any."""
    name = result["name"]
    written = [out / f"{name}.json", out / f"{name}.md"]
    write_json(written[0], result)
    for picture in pictures(result):
        written.append(out / picture.file)
        write_atomically(written[-1], picture.draw)
    text = markdown(result)
    write_atomically(written[1], lambda path: path.write_text(text, encoding="utf-8"))
    print(f"Written: {', '.join(map(str, written))}")
