"""The pictures of an experiment: lines over its rows or columns, on white, for a document."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kdlit.report.charts import Line, band, limits
from kdlit.report.drawing import DASHES, canvas, line_style, style
from kdlit.report.statistics import estimate

_INK, _FAINT = "#24292f", "#d8dee4"


@dataclass(frozen=True)
class Picture:
    """A picture of one measure.

    Attributes:
        file: its name.
        title: what it shows.
        draw: a function of the path that writes it as PNG; raises a ConfigError if matplotlib is
            not installed.
    """

    file: str
    title: str
    draw: Callable[[Path], None]


def pictures(result: Mapping[str, Any]) -> list[Picture]:
    """Return the pictures of a table: one for each measure, if it asks for any."""
    asked = result["picture"]
    if not asked:
        return []
    return [
        Picture(
            f"{result['name']}{f'_{_last(measure)}' if place else ''}.png",
            f"{measure['name']} by {asked['name']}",
            partial(_draw, lines_of(result, measure), asked, measure, _of_lines(result)),
        )
        for place, measure in enumerate(result["measures"])
    ]


def _of_lines(result: Mapping[str, Any]) -> str | None:
    """Return what the lines' names are of, where they are numbers of rows."""
    return result["rows_are"] if result["picture"]["x"] == "columns" else None


def _last(measure: Mapping[str, Any]) -> str:
    value: str = measure["value"]
    return value.rpartition(".")[2]


def lines_of(result: Mapping[str, Any], measure: Mapping[str, Any]) -> list[tuple[str, Line]]:
    """Return a line, with its name, for each column over the rows, or the other way round."""
    along, across = ("row", "column") if result["picture"]["x"] == "rows" else ("column", "row")
    drawn = []
    for place, name in enumerate(result[f"{across}s"]):
        cells = [
            cell
            for cell in result["cells"]
            if cell[across] == name
            and measure["value"] in cell["values"]
            and number(cell[along]) is not None
        ]
        estimates = [estimate(cell["values"][measure["value"]]) for cell in cells]
        # Dashed in turn, too, since lines may cover each other: hard labels are often the truth.
        color, dashes = style(place)[0], DASHES[place % len(DASHES)]
        line = Line(
            [number(cell[along]) or 0.0 for cell in cells],
            [found.mean for found in estimates],
            [found.half or 0.0 for found in estimates],
            color,
            dashes,
        )
        if cells:
            drawn.append((name, line))
    return drawn


def number(name: str) -> float | None:
    """Return the number that a row's or column's name begins with, or None.

    >>> number("6,000"), number("T = 2.5"), number("truth")
    (6000.0, 2.5, None)
    """
    found = re.search(r"\d[\d,]*(\.\d+)?", name)
    return float(found[0].replace(",", "")) if found else None


def _draw(
    drawn: Sequence[tuple[str, Line]],
    asked: Mapping[str, Any],
    measure: Mapping[str, Any],
    legend: str | None,
    path: Path,
) -> None:
    """Draw lines with bands and write them as PNG."""
    with canvas(6.4, 3.8) as figure:
        axes = figure.add_subplot()
        for name, line in drawn:
            axes.plot(
                line.xs, line.ys, color=line.color, linestyle=line_style(line.dashes),
                marker="o", markersize=4, label=name,
            )  # fmt: skip
            low, high = band(line)
            axes.fill_between(line.xs, low, high, color=line.color, alpha=0.18, lw=0)
        xs = sorted({value for _, line in drawn for value in line.xs})
        axes.set_xscale(asked.get("scale", "log"))
        axes.set_xticks(xs, [f"{value:,g}" if value < 1e6 else f"{value:,.0f}" for value in xs])
        axes.set_xticks([], minor=True)
        bottom, top = limits([line for _, line in drawn])
        if measure["unit"] == "percent":
            top = min(top, 100)
        axes.set_ylim(bottom, top)
        axes.set_xlabel(asked["name"], color=_INK)
        axes.set_ylabel(measure["name"], color=_INK)
        axes.tick_params(colors=_INK)
        axes.grid(color=_FAINT)
        for spine in axes.spines.values():
            spine.set_color(_INK)
        axes.legend(loc="best", title=legend, labelcolor=_INK, edgecolor=_FAINT)
        figure.savefig(path, format="png", dpi=160, facecolor="white", metadata={"Software": None})
