"""The drawings: lines with bands, heat maps, reliability diagrams, points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kdlit.report.content import Panel
from kdlit.report.drawing import canvas, line_style, to_svg

# Curves whose highest value is so many times the lowest are drawn over powers of ten.
_LOG_FROM = 30


@dataclass(frozen=True)
class Line:
    """A line, and the band or the bars around it.

    Attributes:
        xs: from the left.
        ys: as many.
        halves: half the height of the band at each x; 0 where there is none.
        color: of the line.
        dashes: SVG's, or empty.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    halves: Sequence[float]
    color: str
    dashes: str = ""


@dataclass(frozen=True)
class Point:
    """A point with an error bar, in percent upwards."""

    x: float
    y: float
    half: float
    color: str
    marker: str = "o"


@dataclass(frozen=True)
class Cells:
    """A matrix of values by row and column, None where there is none."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]] = field(repr=False)


def lines(
    name: str, title: str, drawn: Sequence[Line], x: str, y: str, *, bars: bool, description: str
) -> Panel:
    """Draw lines with error bars, or with bands around them."""
    with canvas() as figure:
        axes = figure.add_subplot()
        xs = sorted({value for line in drawn for value in line.xs})
        for line in drawn:
            options: dict[str, Any] = {"color": line.color, "linestyle": line_style(line.dashes)}
            if bars:
                halves = [half or math.nan for half in line.halves]
                axes.errorbar(
                    line.xs, line.ys, halves, marker="o", markersize=4, capsize=3, **options
                )
            else:
                marker = "o" if len(line.xs) <= 12 else None
                axes.plot(line.xs, line.ys, marker=marker, markersize=4, **options)
                if any(line.halves):
                    low, high = band(line)
                    axes.fill_between(line.xs, low, high, color=line.color, alpha=0.18, lw=0)
        if bars:
            axes.set_ylim(*limits(drawn))
            if xs[0] > 0 and xs[-1] / xs[0] >= 5:
                axes.set_xscale("log")
            if len(xs) <= 8:
                axes.set_xticks(xs, [f"{value:g}" for value in xs])
                axes.set_xticks([], minor=True)
        else:
            # There is no half an epoch.
            from matplotlib.ticker import MaxNLocator

            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            ys = [y for line in drawn for y in line.ys]
            if min(ys) > 0 and max(ys) / min(ys) >= _LOG_FROM:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
                axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return Panel(to_svg(figure, name), title, description)


def limits(drawn: Sequence[Line]) -> tuple[float, float]:
    """Return limits that show the lines: bars that are much longer, as of two seeds, go on."""
    ys = [y for line in drawn for y in line.ys]
    bands = [band(line) for line in drawn]
    low, high = (choose(v for b in bands for v in b[end]) for end, choose in ((0, min), (1, max)))
    room = max(max(ys) - min(ys), 0.5)
    low, high = max(low, min(ys) - room), min(high, max(ys) + room)
    edge = 0.05 * (high - low) or 0.5
    return low - edge, high + edge


def band(line: Line) -> tuple[list[float], list[float]]:
    """Return the lower and the upper edge of a line's band."""
    pairs = list(zip(line.ys, line.halves, strict=True))
    return [y - half for y, half in pairs], [y + half for y, half in pairs]


def heat_map(
    name: str,
    title: str,
    cells: Cells,
    x: str,
    y: str,
    *,
    digits: int,
    description: str,
    highest: float | None = None,
) -> Panel:
    """Draw a matrix; each cell has its colour and, up to 12 columns, its number.

    Args:
        name: of the drawing.
        title: above it.
        cells: the values.
        x: what the columns are.
        y: what the rows are.
        digits: of the numbers.
        description: for those who cannot see it.
        highest: the value with the brightest colour; those above it have the same.
    """
    size = len(cells.columns)
    known = [value for row in cells.values for value in row if value is not None]
    left = 0.4 + 0.08 * max(map(len, cells.rows))
    with canvas(4.2 if size > 6 else 3.6, 3.8 if len(cells.rows) > 6 else 2.8, left) as figure:
        from matplotlib.colors import Normalize

        axes = figure.add_subplot()
        axes.grid(visible=False)
        norm = Normalize(min(known), max(known) if highest is None else highest, clip=True)
        matrix = [[math.nan if v is None else v for v in row] for row in cells.values]
        axes.pcolormesh(matrix, cmap="cividis", norm=norm, edgecolors="none")
        axes.invert_yaxis()
        axes.set_xticks([place + 0.5 for place in range(size)], list(cells.columns))
        axes.set_yticks([place + 0.5 for place in range(len(cells.rows))], list(cells.rows))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for row, values in enumerate(cells.values if size <= 12 else ()):
            for column, value in enumerate(values):
                if value is not None:
                    dark = float(norm(value)) < 0.55
                    axes.text(
                        column + 0.5,
                        row + 0.5,
                        f"{value:.{digits}f}",
                        ha="center",
                        va="center",
                        color="#ffffff" if dark else "#000000",
                        fontsize=7 if size > 6 else 8,
                    )
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return Panel(to_svg(figure, name), title, description)


def reliability(
    name: str, title: str, bins: Sequence[dict[str, float]], color: str, description: str
) -> Panel:
    """Draw how often a network is right against how sure it is; larger points are more samples."""
    total = sum(entry["count"] for entry in bins)
    seen = [entry for entry in bins if entry["count"]]
    with canvas(2.6, 2.6) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#808080", linestyle=(0, (4, 3)), lw=1)
        xs, ys = ([entry[key] for entry in seen] for key in ("confidence", "accuracy"))
        axes.plot(xs, ys, color=color, lw=1.2)
        sizes = [8 + 120 * math.sqrt(entry["count"] / total) for entry in seen]
        axes.scatter(xs, ys, s=sizes, color=color, alpha=0.75, lw=0)
        axes.set(xlim=(0, 1.04), ylim=(0, 1.04), xlabel="confidence", ylabel="accuracy")
        return Panel(to_svg(figure, name), title, description)


def points(
    name: str, title: str, drawn: Sequence[Point], x: str, y: str, description: str
) -> Panel:
    """Draw points with error bars, on a logarithmic axis where they lie far apart."""
    with canvas() as figure:
        axes = figure.add_subplot()
        for point in drawn:
            axes.errorbar(
                [point.x],
                [point.y],
                [point.half or math.nan],
                color=point.color,
                marker=point.marker,
                markersize=7,
                capsize=3,
                linestyle="none",
            )
        xs = [point.x for point in drawn]
        if min(xs) > 0 and max(xs) / min(xs) >= 5:
            axes.set_xscale("log")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return Panel(to_svg(figure, name), title, description)
