"""The page of an experiment: its tables in Markdown, with all that belongs to them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdlit.report.papers_picture import pictures
from kdlit.report.table import mean_and_spread

_OF_SPREAD = "mean ± sample standard deviation over the seeds"


def markdown(result: Mapping[str, Any]) -> str:
    """Return the page of what :func:`kdlit.report.papers.tabulate` gives."""
    parts = [f"# {result['title']}", result["about"]]
    drawn = [f"![{picture.title}]({picture.file})" for picture in pictures(result)]
    if drawn:
        parts += [
            *drawn,
            "Lines are means over the seeds, bands their 95 % intervals after Student.",
        ]
    found = {value for cell in result["cells"] for value in cell["values"]}
    measures = [measure for measure in result["measures"] if measure["value"] in found]
    for measure in measures:
        parts += [f"{_upper(measure['name'])}: {_OF_SPREAD}.", _values(result, measure)]
    if result["reference"]:
        parts.append(f"*Reference*: {result['reference']}.")
    if result.get("finding"):
        parts.append(f"## What it shows\n\n{result['finding']}")
    for measure in measures:
        name, value = measure["name"], measure["value"]
        if any(value in cell["gains"] for cell in result["cells"]):
            points = " in percentage points" if measure["unit"] in ("percent", "error") else ""
            parts.append(
                f"## {_upper(name)}, beside {result['baseline']}\n\nDifference{points}, seed by "
                "seed, with its 95 % interval; bold where the interval excludes 0."
            )
            parts.append(_gains(result, measure))
    for show in result["shown"]:
        parts.append(f"## {show['title']}\n\n![{show['title']}]({show['file']})\n\n{show['text']}")
    parts.append("## Protocol\n\n" + "\n".join(f"- {line}" for line in result["differences"]))
    parts += ["## Run", _origin(result)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _values(result: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    value = measure["value"]
    cells = result["cells"]
    without = {cell["column"] for cell in cells if value not in cell["values"]}
    with_value = {cell["column"] for cell in cells if value in cell["values"]}
    # A column without runs stays, empty; one whose runs do not have this measure is not shown.
    shown = [column for column in result["columns"] if column not in without - with_value]
    header = [result["rows_are"], "epochs", "steps", "seeds", *shown]
    lines = []
    for row, of_row in _by_row(result).items():
        first = next(iter(of_row.values()))
        beginning = [row, f"{first['epochs']:,}", f"{first['steps']:,}", _seeds(of_row.values())]
        ours = [
            mean_and_spread(of_row[column]["values"][value], 1.0, measure["digits"])
            if column in of_row and value in of_row[column]["values"]
            else ""
            for column in shown
        ]
        lines.append([*beginning, *ours])
        theirs = [measure["references"].get(row, {}).get(column, "") for column in shown]
        if any(map(str, theirs)):
            told = (f"*{cell}*" if str(cell) else "" for cell in theirs)
            lines.append(["*reference*", "", "", "", *told])
    return _table(header, lines)


def _seeds(cells: Iterable[Mapping[str, Any]]) -> str:
    """Return the seeds of a row, of each cell where they differ."""
    told = [", ".join(map(str, cell["seeds"])) for cell in cells]
    return told[0] if len(set(told)) == 1 else " / ".join(told)


def _gains(result: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    value, digits = measure["value"], measure["digits"]
    others = [
        column
        for column in result["columns"]
        if any(value in cell["gains"] for cell in result["cells"] if cell["column"] == column)
    ]
    lines = []
    for row, cells in _by_row(result).items():
        gains = [
            cells[column]["gains"].get(value) if column in cells else None for column in others
        ]
        lines.append([row, *(_gain(gain, digits) for gain in gains)])
    return _table([result["rows_are"], *others], lines)


def _gain(gain: Mapping[str, Any] | None, digits: int) -> str:
    """Return a difference in words of a table.

    >>> _gain({"mean": 2.0, "low": 1.0, "high": 3.0}, 2)
    '**+2.00** [+1.00, +3.00]'
    """
    if gain is None:
        return ""
    mean = f"{gain['mean']:+.{digits}f}"
    if gain["low"] is None:
        return mean
    excludes = gain["low"] > 0 or gain["high"] < 0
    interval = f"[{gain['low']:+.{digits}f}, {gain['high']:+.{digits}f}]"
    return f"{f'**{mean}**' if excludes else mean} {interval}"


def _by_row(result: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for cell in result["cells"]:
        rows.setdefault(cell["row"], {})[cell["column"]] = cell
    return rows


def _origin(result: Mapping[str, Any]) -> str:
    device, fits = result["device"], result["seconds_of_fit"]
    told = [f"Written by `{result['command']}`. Student: {result['student']}"]
    told[0] += "".join(f"; {_teacher(teacher)}" for teacher in result["teachers"])
    threads = f"{device['threads']} thread{'s' if device['threads'] > 1 else ''}"
    told.append(
        f"{result['runs']} runs took {result['seconds'] / 60:.0f} minutes added up, a fit "
        f"{statistics.median(fits):.1f} s in the median, on {device['type']} ({device['name']}, "
        f"{threads})"
    )
    told.append(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    return ".\n".join(told) + "."


def _teacher(teacher: Mapping[str, Any]) -> str:
    accuracies = [100 * accuracy for accuracy in teacher["accuracies"]]
    found = f"{min(accuracies):.2f}" + (f" to {max(accuracies):.2f}" if len(accuracies) > 1 else "")
    images = teacher["training_samples"]
    seen = "" if images is None else f" {images:,} images,"
    return f"teacher: {teacher['type']},{seen} {found} % on test"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---" + "|---:" * (len(header) - 1) + "|"
    return "\n".join(
        [f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(cells)} |" for cells in lines)]
    )


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
