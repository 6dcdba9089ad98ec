"""The table of an experiment: rows by columns over seeds, beside what others have found."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdlit.report.charts import Line
from kdlit.report.drawing import DASHES, style
from kdlit.report.picture import draw_lines
from kdlit.report.statistics import estimate, paired
from kdlit.report.table import mean_and_spread

Runs = Sequence[Mapping[str, Any]]
_OF_SPREAD = "mean ± sample standard deviation over the seeds"


def tabulate(
    asked: Mapping[str, Any], text: Mapping[str, Any], found: Mapping[tuple[str, str], Runs]
) -> dict[str, Any]:
    """Return all that the table says, as JSON can hold it.

    Args:
        asked: what was run, to be kept with the numbers: `name`, `size`, `command`, `settings`,
            and the overrides of `rows` and `columns`.
        text: what is said beside the numbers; see :class:`kdlit.app.experiments.Experiment`.
        found: the summaries of the runs by row and column, one for each seed.
    """
    first = next(iter(found.values()))[0]
    runs = [run for runs in found.values() for run in runs]
    return {
        **asked,
        **{key: text[key] for key in ("title", "about", "measure", "rows_are", "differences")},
        **{key: text.get(key) for key in ("picture", "baseline", "reference")},
        "cells": [_cell(cell, found, text) for cell in found],
        "student": first["student"]["type"],
        "teacher": _teacher(runs),
        "seconds": round(sum(sum(run["seconds"].values()) for run in runs), 1),
        "device": first["device"],
        "versions": first["versions"],
    }


def _cell(
    cell: tuple[str, str], found: Mapping[tuple[str, str], Runs], text: Mapping[str, Any]
) -> dict[str, Any]:
    row, column = cell
    runs, path = found[cell], text["measure"]["path"]
    values = {run["seed"]: float(_value(run, path)) for run in runs}
    baseline = text.get("baseline")
    gain = None
    if baseline is not None and baseline != column:
        before = {run["seed"]: float(_value(run, path)) for run in found.get((row, baseline), ())}
        compared = paired(values, before)
        if compared is not None:
            difference = compared.difference
            gain = {"mean": difference.mean, "low": difference.low, "high": difference.high}
    return {
        "row": row,
        "column": column,
        "reference": text.get("references", {}).get(row, {}).get(column),
        "seeds": list(values),
        "values": list(values.values()),
        "gain": gain,
        "training_samples": runs[0]["student"]["training_samples"],
        "epochs": runs[0]["epochs"],
        "steps": runs[0]["steps"],
        "seconds_of_fit": [run["seconds"]["fit"] for run in runs],
    }


def _value(run: Mapping[str, Any], path: str) -> Any:
    value: Any = run
    for key in path.split("."):
        value = value[key]
    return value


def _teacher(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    teacher = next((run["teacher"] for run in runs if run["teacher"]), None)
    if teacher is None:
        return None
    card = teacher["card"]
    return {
        "type": teacher["type"],
        "accuracy": teacher["test"]["accuracy"],
        "training_samples": teacher["training_samples"],
        "seconds": card.get("seconds"),
    }


# The picture ------------------------------------------------------------------------------------


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """Draw a line for each column over the number of training samples, with 95 % bands."""
    drawn = []
    for place, column in enumerate(result["columns"]):
        cells = [cell for cell in result["cells"] if cell["column"] == column]
        estimates = [estimate([100 * value for value in cell["values"]]) for cell in cells]
        # Dashed in turn, too, since lines may cover each other: hard labels are often the truth.
        color, dashes = style(place)[0], DASHES[place % len(DASHES)]
        line = Line(
            [cell["training_samples"] for cell in cells],
            [found.mean for found in estimates],
            [found.half or 0.0 for found in estimates],
            color,
            dashes,
        )
        drawn.append((column, line))
    draw_lines(path, drawn, result["picture"], result["measure"]["name"])


# Markdown ---------------------------------------------------------------------------------------


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table in Markdown, with all that belongs to it."""
    name = result["name"]
    parts = [f"# {result['title']}", result["about"]]
    if result["picture"]:
        parts.append(f"![{result['measure']['name']} by {result['picture']}]({name}.png)")
        parts.append("Lines are means over the seeds, bands their 95 % intervals after Student.")
    parts += [f"{_upper(result['measure']['name'])}: {_OF_SPREAD}.", _values(result)]
    if result["reference"]:
        parts.append(f"*Reference*: {result['reference']}.")
    if any(cell["gain"] for cell in result["cells"]):
        parts.append(
            f"## Beside {result['baseline']}\n\nDifference in percentage points, seed by seed, "
            "with its 95 % interval; bold where the interval excludes 0."
        )
        parts.append(_gains(result))
    parts.append("## Protocol\n\n" + "\n".join(f"- {line}" for line in result["differences"]))
    parts += ["## Run", _origin(result)]
    return "\n\n".join(parts) + "\n"


def _values(result: Mapping[str, Any]) -> str:
    header = [result["rows_are"], "epochs", "steps", "seeds", *result["columns"]]
    lines = []
    for row, cells in _by_row(result).items():
        first = next(iter(cells.values()))
        beginning = [row, f"{first['epochs']:,}", f"{first['steps']:,}", _seeds(cells.values())]
        ours = [
            mean_and_spread(cells[column]["values"], 100, 2) if column in cells else ""
            for column in result["columns"]
        ]
        lines.append([*beginning, *ours])
        theirs = [cells.get(column, {}).get("reference") or "" for column in result["columns"]]
        if any(theirs):
            lines.append(
                ["*reference*", "", "", "", *(f"*{cell}*" if cell else "" for cell in theirs)]
            )
    return _table(header, lines)


def _seeds(cells: Iterable[Mapping[str, Any]]) -> str:
    """Return the seeds of a row, of each cell where they differ."""
    told = [", ".join(map(str, cell["seeds"])) for cell in cells]
    return told[0] if len(set(told)) == 1 else " / ".join(told)


def _gains(result: Mapping[str, Any]) -> str:
    others = [column for column in result["columns"] if column != result["baseline"]]
    lines = []
    for row, cells in _by_row(result).items():
        gains = [cells[column]["gain"] if column in cells else None for column in others]
        lines.append([row, *(_gain(gain) for gain in gains)])
    return _table([result["rows_are"], *others], lines)


def _gain(gain: Mapping[str, Any] | None) -> str:
    """Return a difference in words of a table.

    >>> _gain({"mean": 0.02, "low": 0.01, "high": 0.03})
    '**+2.00** [+1.00, +3.00]'
    """
    if gain is None:
        return ""
    mean = f"{100 * gain['mean']:+.2f}"
    if gain["low"] is None:
        return mean
    excludes = gain["low"] > 0 or gain["high"] < 0
    interval = f"[{100 * gain['low']:+.2f}, {100 * gain['high']:+.2f}]"
    return f"{f'**{mean}**' if excludes else mean} {interval}"


def _by_row(result: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for cell in result["cells"]:
        rows.setdefault(cell["row"], {})[cell["column"]] = cell
    return rows


def _origin(result: Mapping[str, Any]) -> str:
    device, teacher = result["device"], result["teacher"]
    fits = [seconds for cell in result["cells"] for seconds in cell["seconds_of_fit"]]
    told = [f"Written by `{result['command']}`. Student: {result['student']}"]
    if teacher is not None:
        told[0] += (
            f"; teacher: {teacher['type']}, {teacher['training_samples']:,} images, "
            f"{100 * teacher['accuracy']:.2f} % on test"
        )
    threads = f"{device['threads']} thread{'s' if device['threads'] > 1 else ''}"
    told.append(
        f"{len(fits)} runs took {result['seconds'] / 60:.0f} minutes added up, a fit "
        f"{statistics.median(fits):.1f} s in the median, on {device['type']} ({device['name']}, "
        f"{threads})"
    )
    told.append(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    return ".\n".join(told) + "."


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---" + "|---:" * (len(header) - 1) + "|"
    return "\n".join(
        [f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(cells)} |" for cells in lines)]
    )


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
